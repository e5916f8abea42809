"""What a person sees: the commands, their JSON, and their answers to bad input."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from safetensors.torch import save_file

from sam_edge.axes import PRECISIONS, Gate
from sam_edge.bundle.manifest import integrity
from sam_edge.cli import main
from sam_edge.imaging.regions import label
from sam_edge.models.catalogue import CATALOGUE, HERE


def refused(capsys, arguments, says, code=2):
    """One clear message, the exit code, no traceback."""
    before = set(os.listdir("."))
    assert main([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    assert says in err and err.startswith("error: ") and err.count("\n") == 1, err
    assert "Traceback" not in err and not out
    assert set(os.listdir(".")) == before


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


def test_predict_writes_the_clicked_object(exported, tmp_path, capsys):
    photo = HERE / "photos" / "astronaut.jpg"
    mask_path, overlay = tmp_path / "mask.png", tmp_path / "overlay.png"
    code = main(["predict", str(exported), str(photo), "--point", "225,120", "--out", str(mask_path),
                 "--overlay", str(overlay), "--json"])  # fmt: skip
    result = json.loads(capsys.readouterr().out)
    assert code == 0 and result["backend"] == "onnxruntime" and result["device"] == "cpu"
    (found,) = result["masks"]
    mask = coco.decode(found["rle"]).astype(bool)
    np.testing.assert_array_equal(np.asarray(Image.open(mask_path)) > 127, mask)
    assert mask[120, 225] and found["area"] == mask.sum()
    assert Image.open(overlay).size == Image.open(photo).size


def test_predict_numbers_several_masks(exported, photo, tmp_path, capsys):
    out = tmp_path / "m.png"
    arguments = ["predict", exported, photo, "--box", "10,10,200,200", "--box", "100,50,300,250"]
    assert main([str(a) for a in [*arguments, "--out", out]]) == 0
    assert sorted(os.listdir(tmp_path)) == ["m-0.png", "m-1.png"]


def test_predict_refines_and_cleans(exported, photo, tmp_path, capsys):
    arguments = ["predict", str(exported), str(photo), "--box", "130,60,230,160"]
    found = {}
    for options in ([], ["--refine"], ["--refine", "--min-region-area", "100000"]):
        assert main([*arguments, *options, "--json"]) == 0
        found[len(options)] = json.loads(capsys.readouterr().out)["masks"][0]
    assert "refinement" not in found[0] and found[1]["refinement"] == "refined"
    first, refined, cleaned = (coco.decode(one["rle"]).astype(bool) for one in found.values())
    assert (first & refined).sum() > 0.2 * (first | refined).sum() and (first != refined).any()
    assert label(cleaned)[1].size == 2  # background and one object
    # A mask of nearly the whole image is not worth a second pass; a person is told.
    assert main([*arguments[:3], "--box", "0,0,451,300", "--multimask", "--refine"]) == 0
    assert "not refined: whole image" in capsys.readouterr().out


def test_a_mask_can_be_the_prompt(exported, photo, tmp_path, capsys):
    drawn = np.zeros((300, 451), np.uint8)
    drawn[80:250, 130:330] = 255
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    arguments = ["predict", exported, photo, "--mask", tmp_path / "drawn.png", "--json"]
    assert main([str(a) for a in arguments]) == 0
    assert len(json.loads(capsys.readouterr().out)["masks"]) == 1


def test_verify_repeats_the_exports_parity(exported, capsys):
    assert main(["verify", str(exported), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (row,) = result["variants"]
    assert result["passed"] and row["id"] == "onnx-fp32" and row["device"] == "cpu"
    recorded = json.loads((exported / "manifest.json").read_text())["variants"][0]["parity"]
    assert row["mean_iou"] == pytest.approx(recorded["mean_iou"], abs=1e-6)
    assert row["mean_iou"] >= 0.999


def test_verify_fails_when_the_masks_differ(exported, capsys):
    assert main(["verify", str(exported), "--min-iou", "1.1"]) == 1


@pytest.mark.parametrize("command", ["info", "models", "devices"])
def test_tables_and_their_json(exported, capsys, command):
    where = [str(exported)] if command == "info" else []
    assert main([command, *where]) == 0 and capsys.readouterr().out
    assert main([command, *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_the_graphs_carry_the_models_facts(exported):
    import onnx

    manifest = json.loads((exported / "manifest.json").read_text())
    for part in ("encoder", "decoder"):
        proto = onnx.load(exported / "onnx-fp32" / f"{part}.onnx")
        facts = json.loads({p.key: p.value for p in proto.metadata_props}["sam_edge"])
        assert facts["model"] == manifest["model"] and facts["input"] == manifest["input"]
        assert facts["graph"] == part


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (["--point", "9999,5"], "outside the image"),
        (["--point", "5,5,7"], "label 7 is unknown"),
        (["--point", "5"], "not X,Y"),
        (["--box", "90,10,20,80"], "x0 < x1"),
        (["--point", "5,5", "--box", "1,1,9,9", "--box", "2,2,9,9"], "at most one --box"),
        ([], "no prompt was given"),
        (["--point", "5,5", "--out", "/nowhere/at/all.png"], "not a directory"),
    ],
)
def test_bad_prompts(exported, photo, capsys, prompt, says):
    refused(capsys, ["predict", exported, photo, *prompt], says)


def test_a_text_file_is_no_image(exported, tmp_path, capsys):
    (tmp_path / "photo.jpg").write_text("this is not a picture")
    refused(capsys, ["predict", exported, tmp_path / "photo.jpg", "--point", "5,5"], "photo.jpg")


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx"])
def test_a_flipped_byte_is_found(bundle, photo, capsys, name):
    path = bundle / "onnx-fp32" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(capsys, ["predict", bundle, photo, "--point", "5,5"], "not the file that was exported")
    refused(capsys, ["verify", bundle], "not the file that was exported")


def rewrite(bundle, change):
    """Change the manifest as an attacker would: with a matching integrity hash."""
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps({**data, "integrity": integrity(data)}))


def test_a_path_out_of_the_bundle_is_refused(bundle, photo, capsys):
    rewrite(bundle, lambda data: data["variants"][0]["encoder"].update(path="../../etc/passwd"))
    refused(capsys, ["predict", bundle, photo, "--point", "5,5"], "../../etc/passwd")
    refused(capsys, ["verify", bundle], "../../etc/passwd")


def test_a_newer_schema_is_refused(bundle, capsys):
    rewrite(bundle, lambda data: data.update(schema_version=2, news=1))
    refused(capsys, ["verify", bundle], "upgrade sam-edge")


def test_a_directory_that_is_no_bundle(tmp_path, capsys):
    refused(capsys, ["verify", tmp_path], "is not a bundle")


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


def bad_checkpoints(tmp_path):
    whole = (HERE / CATALOGUE["sam_edge_tiny"].checkpoint.file).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:900])
    with open(tmp_path / "code.pth", "wb") as file:
        pickle.dump(RunsCode(), file)
    torch.save({"model": RunsCode()}, tmp_path / "zip-code.pth")
    save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "foreign.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.pth", "is not a file"),
        ("cut.safetensors", "truncated"),
        ("cut.pth", "truncated"),
        ("code.pth", "never run"),
        ("zip-code.pth", "never run"),
        ("foreign.safetensors", "the nearest is"),
    ],
)
def test_bad_checkpoints(tmp_path, capsys, name, says):
    path = bad_checkpoints(tmp_path) / name
    refused(capsys, ["export", "--checkpoint", path, "--out", "new/folder/b"], says)


def test_a_partly_matching_checkpoint_names_the_keys(tmp_path, capsys):
    from safetensors.torch import load_file

    weights = load_file(HERE / CATALOGUE["sam_edge_tiny"].checkpoint.file)
    del weights["mask_decoder.iou_token.weight"]
    weights["image_encoder.stem.bias"] = torch.zeros(5)
    save_file({**weights, "extra": torch.zeros(1)}, tmp_path / "p.safetensors")
    refused(capsys, ["export", "--checkpoint", tmp_path / "p.safetensors", "--out", "b"],
            "nearest is sam_edge_tiny (99% of its tensors agree): 1 missing, first "
            "mask_decoder.iou_token.weight; 1 unexpected, first extra; 1 misshapen, first "
            "image_encoder.stem.bias (5,) instead of (32,)")  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vit_z"], "unknown model"),
        (["vit_b"], "needs its checkpoint"),
        (["--format", "tflite"], "unknown format"),
        (["--precision", "int3"], "unknown precision"),
        (["--target", "hexagon,web", "--precision", "bf16,int8"], "--precision bf16 is supported by none of"),
        (["--format", "openvino", "--ios", "17"], "--ios needs --format coreml"),
        (
            ["--format", "coreml", "--dynamic", "--bogus"],
            "unrecognized arguments: --bogus; see sam-edge export --help",
        ),
        (["--out", "/proc/nowhere/b"], "cannot be written"),
        (["--out", "/dev/null"], "is a file"),
        (["--out", "/usr"], "is not a bundle"),
    ],
)
def test_bad_export_requests(capsys, arguments, says):
    refused(capsys, ["export", *arguments], says)


def test_a_gate_that_cannot_be_met_publishes_nothing(tmp_path, capsys, monkeypatch):
    stricter = replace(PRECISIONS.get("fp32"), gate=Gate(1.1, 1.1))
    monkeypatch.setitem(PRECISIONS._built_in(), "fp32", stricter)
    assert main(["export", "--out", str(tmp_path / "b"), "--json"]) == 1
    assert "nothing was published" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_a_reader_that_has_seen_enough_gets_no_traceback():
    command = [sys.executable, "-m", "sam_edge", "models", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1
