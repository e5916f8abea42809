"""A benchmark session of the peers, whose environments are all this interpreter."""

import json
import os
import subprocess
import sys

import pytest

from tools.peers.__main__ import main
from tools.peers.environments import copy_package, torchvision_parts
from tools.peers.table import markdown
from tools.peers.worker import megabytes


@pytest.fixture
def environments(tmp_path):
    """A Python for each environment that the embedded model's peers need."""
    for name in ("segment_anything", "sam_edge"):
        python = tmp_path / "envs" / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    return tmp_path / "envs"


def test_one_session(exported, environments, tmp_path, capsys):
    arguments = ["--environments", str(environments), "--repeats", "2", "--seconds", "0.01", "--threads", "1"]
    # Not imports: these environments have no torchvision.
    arguments += ["--measure", "images,masks,everything"]
    more = ["--points-per-side", "2", "--out", str(tmp_path / "peers.json"), "--json"]
    assert main([str(exported), *arguments, *more]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "peers.json").read_text()) and not report["partial"]
    theirs, ours = report["rows"]["segment_anything"], report["rows"]["sam-edge onnx-fp32"]
    for row in (theirs, ours):
        for name in ("encode_ms", "click_ms", "load_ms", "peak_mb"):
            assert len(row[name]) == 2 and all(value > 0 for one in row[name] for value in one)
    assert ours["parity"]["mean_iou"] > 0.999 and ours["parity"]["min_iou"] > 0.99
    assert ours["everything_count"] == theirs["everything_count"]
    assert "torch" in theirs["loaded_mb"] and "torch" not in ours["loaded_mb"]
    assert "samexporter exports vit_b" in report["absent"]["samexporter"]
    table = markdown(report)
    assert "| sam-edge onnx-fp32 |" in table and "(x " in table


def test_what_lies_in_the_working_directory_is_not_imported(exported, environments, tmp_path, monkeypatch):
    """As at the top of the source tree, whose sam_edge/ is not the whole package."""
    (tmp_path / "here" / "sam_edge").mkdir(parents=True)
    (tmp_path / "here" / "sam_edge" / "__init__.py").write_text("raise ImportError('not the one')")
    monkeypatch.chdir(tmp_path / "here")
    arguments = ["--environments", str(environments), "--repeats", "1", "--seconds", "0", "--threads", "1"]
    assert main([str(exported), *arguments, "--measure", "images", "--peers", "onnx-fp32"]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--install makes what is missing"),
        (["--peers", "nobody"], "no peer nobody"),
        (["--measure", "beauty"], "--measure beauty"),
        (["--threads", "0"], "--threads is 0"),
        (["--checkpoint", "none.pth"], "none.pth is not a file"),
        (["--checkpoint", __file__], "was not made from"),
        (["--out", "/nowhere/x.json"], "/nowhere is not a directory"),
        (["--install", "--sam-edge", "/nowhere"], "neither a wheel nor a source tree"),
    ],
)
def test_wrong_input(exported, tmp_path, capsys, arguments, says):
    assert main([str(exported), "--environments", str(tmp_path / "none"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error
    assert not (tmp_path / "none").exists()


def test_the_copied_package_is_the_one_that_runs(tmp_path):
    """Also in an environment that has no sam-edge, and whatever lies in the working directory."""
    package = copy_package(tmp_path / "package")
    assert torchvision_parts(package).is_file()
    code = "import tools.peers.worker, sam_edge.benchmarks.measure; print(tools.__file__, sam_edge.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(package / name / "__init__.py") for name in ("tools", "sam_edge")]


def test_a_worker_imports_no_sam_edge():
    """It would count in the memory of its peer."""
    code = "import sys, tools.peers.worker; print([m for m in sys.modules if m.startswith('sam_edge')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_peer_that_fails_is_named(exported, environments, capsys):
    (environments / "sam_edge" / "bin" / "python").write_text("#!/bin/sh\nexit 3\n")
    assert main([str(exported), "--environments", str(environments)]) == 2
    assert "the environment sam_edge does not run" in capsys.readouterr().err


def test_sizes_are_of_files():
    sizes = megabytes(["numpy", "no such package"])
    assert list(sizes) == ["numpy"] and 10 < sizes["numpy"] < 500
