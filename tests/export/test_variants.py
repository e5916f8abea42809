"""Exports in several formats and precisions, as a user runs them."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import sam_edge
import sam_edge.backends.openvino
import sam_edge.export.formats.base
import sam_edge.export.graphs.onnx
from sam_edge.backends.openvino import has_bf16
from sam_edge.cli import main


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


def refused(capsys, arguments, says, code=2):
    assert main(["export", *map(str, arguments)]) == code
    _, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert last.startswith("error: ") and says in last, err
    assert not os.listdir(".")


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["--format", "openvino"], "openvino"),
        (["--format", "onnx,coreml"], "coremltools"),
    ],
)
def test_a_converter_that_is_not_installed_is_named_with_its_extra(capsys, monkeypatch, arguments, package):
    base = sam_edge.export.formats.base
    monkeypatch.setattr(base, "find_spec", lambda name: None if name == package else name)
    refused(capsys, [*arguments, "--out", "b"], f"needs {package}, which is not installed; pip install")


def test_bf16_is_not_published_unmeasured(capsys, monkeypatch):
    monkeypatch.setattr(sam_edge.backends.openvino, "has_bf16", lambda: False)
    arguments = ["--format", "openvino", "--precision", "fp32,bf16", "--out", "b"]
    refused(capsys, arguments, "this CPU has no BF16")


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no BF16")
def test_a_bf16_variant_has_the_decoder_of_fp16(capsys):
    """Beside one in FP32, in all the bundle's formats that have it; measured, and without a gate here."""
    arguments = ["--format", "onnx,openvino", "--precision", "fp32,bf16", "--min-iou", "0", "--out", "b"]
    assert main(["export", *arguments, "--json"]) == 0
    variants = json.loads(capsys.readouterr().out)["variants"]
    assert [one["id"] for one in variants] == ["onnx-fp32", "openvino-fp32", "openvino-bf16"]
    fp32, bf16 = variants[1:]
    assert bf16["parity"]["embedding_relative_error"] > 10 * fp32["parity"]["embedding_relative_error"]
    assert any("decoder" in line for line in bf16["higher_precision_ops"])
    sizes = [sum(file["bytes"] for file in one["files"]) for one in (fp32, bf16)]
    assert sizes[1] < 0.55 * sizes[0]
    sam = sam_edge.load("b", "openvino", precision="bf16")
    image = np.zeros((240, 320, 3), np.uint8)
    embedding = sam.encode(image)
    exact = sam_edge.load("b", "openvino", precision="fp32")
    ours, theirs = (one.predict(embedding, [(100, 100)], [1]).low_res_logits for one in (sam, exact))
    assert np.abs(ours - theirs).max() < 0.01 * np.abs(theirs).max()


def test_calibration_folders_without_pictures(capsys, tmp_path):
    refused(capsys, ["--precision", "int8", "--calib", tmp_path / "none", "--out", "b"], "is not a folder")
    (tmp_path / "empty").mkdir()
    refused(capsys, ["--precision", "int8", "--calib", tmp_path / "empty", "--out", "b"], "holds no images")
    (tmp_path / "empty" / "a.png").write_text("text")
    refused(capsys, ["--precision", "int8", "--calib", tmp_path / "empty", "--out", "b"], "can be read")


def test_a_full_disk_leaves_nothing(capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sam_edge.export.graphs.onnx, "save", full)
    refused(capsys, ["--out", "b"], "No space left on device")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--w8a8"], "--w8a8 needs --format coreml"),
        (
            ["--precision", "fp32,bf16"],
            "bf16 is supported by OpenVINO only; add openvino to --format",
        ),
        (["--format", "coreml,openvino", "--precision", "bf16"], "give another one for the other formats"),
        (["--format", "coreml", "--precision", "int8", "--w8a8", "--ios", "16"], "--ios 17 or 18"),
        (["--format", "coreml", "--compat", "segment-anything"], "add onnx to --format"),
        (["--dynamic"], "add openvino to --format"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(capsys, arguments, says):
    refused(capsys, [*arguments, "--out", "b"], says)


NINE = [
    f"{kind}-{precision}" for kind in ("onnx", "openvino", "coreml") for precision in ("fp32", "fp16", "int8")
]


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    out = tmp_path_factory.mktemp("nine") / "bundle"
    arguments = ["--format", "onnx,openvino,coreml", "--precision", "fp32,fp16,int8"]
    assert main(["export", *arguments, "--compat", "segment-anything", "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_nine_variants_are_over_their_gates_and_as_small_as_said(nine):
    variants = json.loads((nine / "manifest.json").read_text())["variants"]
    assert [variant["id"] for variant in variants] == NINE
    assert all(variant["parity"]["passed"] for variant in variants)
    size = {}
    for variant in variants:
        files = [f for f in variant["files"] if "segment-anything" not in f["path"]]
        size[variant["id"]] = sum(file["bytes"] for file in files)
    for kind in ("onnx", "openvino", "coreml"):
        assert size[f"{kind}-fp16"] <= 0.52 * size[f"{kind}-fp32"]
        assert size[f"{kind}-int8"] <= 0.32 * size[f"{kind}-fp32"]


@pytest.mark.slow
def test_verify_repeats_the_figures_without_torch(nine):
    code = """
import sys
sys.modules["torch"] = None
from sam_edge.cli import main
sys.exit(main(["verify", sys.argv[1], "--json"]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(nine)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["id"]: row for row in json.loads(done.stdout)["variants"]}
    assert list(rows) == NINE
    for variant in json.loads((nine / "manifest.json").read_text())["variants"]:
        row = rows[variant["id"]]
        assert row["mean_iou"] == pytest.approx(variant["parity"]["mean_iou"], abs=2e-3)
        assert row["device"] == variant["parity"]["device"]


@pytest.mark.slow
def test_int8_agrees_on_held_out_scenes(nine):
    from sam_edge.models.catalogue import CATALOGUE, HERE
    from tools.training.agreement import agreement

    checkpoint = HERE / CATALOGUE["sam_edge_tiny"].checkpoint.file
    rows = agreement(nine, checkpoint, 200, only=["onnx-int8", "openvino-int8"])
    assert len(rows) == 2
    for row in rows:
        assert row["click_iou"] >= 0.97 and row["box_iou"] >= 0.97, row


@pytest.mark.slow
def test_a_gate_that_cannot_be_met_says_what_was_reached(capsys):
    arguments = ["--precision", "int8", "--min-iou", "0.9999", "--out", "b"]
    refused(capsys, arguments, "the best mean IoU reached is 0.9", code=1)


@pytest.mark.slow
def test_the_hostile_twin_holds_in_int8(tmp_path):
    from safetensors.torch import save_file

    from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
    from sam_edge.models.catalogue import CATALOGUE, HERE
    from tools.ablations.hostile_twin import hostile_twin

    loaded = load_checkpoint(HERE / CATALOGUE["sam_edge_tiny"].checkpoint.file)
    twin = hostile_twin(build_reference(loaded))
    save_file({k: v.contiguous() for k, v in twin.state_dict().items()}, tmp_path / "twin.safetensors")
    arguments = ["--checkpoint", str(tmp_path / "twin.safetensors"), "--format", "onnx,openvino"]
    assert main(["export", *arguments, "--precision", "int8", "--out", str(tmp_path / "b")]) == 0
    variants = json.loads((tmp_path / "b" / "manifest.json").read_text())["variants"]
    assert len(variants) == 2
    assert all(variant["parity"]["mean_iou"] >= 0.95 for variant in variants)


VNNI = {"instruction_set": "vnni", "requires": ["x86: avx512_vnni or avx_vnni or amx_int8"]}


def test_int8_for_vnni_says_what_it_requires(tmp_path, monkeypatch, capsys):
    """Of a machine without it here: it says so, measures all the same, and does not load what it made."""
    from sam_edge.export.targets import vnni
    from sam_edge.runtime import targets
    from sam_edge.system.cpu import Cpu

    for module in (vnni, targets):
        monkeypatch.setattr(module, "this_cpu", lambda: Cpu("x86", frozenset({"avx2"})))
    out = tmp_path / "bundle"
    arguments = ["--target", "vnni", "--precision", "fp32,int8", "--min-iou", "0", "--out", str(out)]
    assert main(["export", *arguments]) == 0
    assert "warning: --target vnni requires x86: avx512_vnni or" in capsys.readouterr().err
    fp32, int8 = json.loads((out / "manifest.json").read_text())["variants"]
    assert not fp32.keys() & VNNI.keys()
    assert {key: int8.get(key) for key in VNNI} == VNNI
    with pytest.raises(sam_edge.DeviceError, match="ask for precision fp32, or export it again"):
        sam_edge.load(out, precision="int8")
    monkeypatch.setattr(targets, "this_cpu", lambda: Cpu("x86", frozenset({"avx_vnni"})))
    sam_edge.load(out, precision="int8").close()
