"""The command that messages give to install an optional dependency."""

from __future__ import annotations

import json

import pytest

from sam_edge.system.install import install_command

CASES = {
    "a checkout": (
        {"url": "file:///home/me/sam%20edge", "dir_info": {"editable": True}},
        "pip install -e '/home/me/sam edge[openvino]'",
    ),
    "a folder": ({"url": "file:///src/sam-edge", "dir_info": {}}, "pip install '/src/sam-edge[openvino]'"),
    "a wheel": (
        {"url": "file:///dist/sam_edge-0.1.0-py3-none-any.whl", "archive_info": {}},
        "pip install '/dist/sam_edge-0.1.0-py3-none-any.whl[openvino]'",
    ),
    "an index": (None, "pip install 'sam-edge[openvino]'"),
}


@pytest.mark.parametrize("source", CASES)
def test_names_what_was_installed(tmp_path, monkeypatch, source):
    record, command = CASES[source]
    folder = tmp_path / "sam_edge-9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: sam-edge\nVersion: 9\n")
    if record is not None:
        (folder / "direct_url.json").write_text(json.dumps(record))
    monkeypatch.syspath_prepend(tmp_path)
    assert install_command("openvino") == command
