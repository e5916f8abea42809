"""The command line: answers, exit codes, one line on stderr, nothing half-written."""

import json
import sys
import types

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from sam_edge.cli import main
from tests.support import toy


@pytest.fixture
def toy_photo(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(toy.picture()).save(folder / "photo.png")
    return folder / "photo.png"


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def fails(capsys, out, *arguments, code=2):
    """Run; expect `code`, one `error:` line, no output, no file. Returns the line."""
    assert main([str(a) for a in arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed.err
    assert list(out.iterdir()) == []
    return printed.err


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ([], "no prompt"),
        (["--point", "80,5"], "outside the image"),
        (["--point", "-5,3"], "outside the image"),
        (["--point=-5,3"], "outside the image"),
        (["--point", "5"], "X,Y"),
        (["--point", "5,6,1,2"], "X,Y"),
        (["--point", "a,b"], "X,Y"),
        (["--point", "nan,5"], "NaN"),
        (["--point", "1e60,5"], "infinity"),
        (["--point", "5,5,7"], "label 7"),
        (["--point", "5,5,-1"], "padding"),
        (["--box", "9,9,5,20"], "x0 < x1"),
        (["--box", "0,0,81,20"], "outside the image"),
        (["--box", "-1,0,8,20"], "outside the image"),
        (["--box", "0,0,8"], "X0,Y0,X1,Y1"),
        (["--box", "0,0,8,8", "--box", "1,1,9,9", "--point", "4,4"], "at most one --box"),
        (["--mask", "{photos}/none.npy"], "none.npy"),
        (["--mask", "{photos}/none.png"], "none.png"),
        (["--mask", "{photos}/small.png"], "same size"),
        (["--mask", "{photos}/text.npy"], "text.npy"),
        (["--mask", "{photos}/wrong.npy"], "wrong.npy"),
        (["--mask", "{photos}/nan.npy"], "nan.npy"),
        (["--mask", "{photos}/zip.npy"], "zip.npy"),
        (["--point", "4,4", "--threads", "-2"], "threads"),
        (["--point", "4,4", "--precision", "fp64"], "fp64"),
        (["--point", "4,4", "--device", "tpu"], "tpu"),
        (["--point", "4,4", "--precision", "int8"], "onnx-fp32"),
        (["--point", "4,4", "--bogus"], "--bogus"),
    ],
)
def test_bad_prompts(capsys, toy_bundle, toy_photo, out, prompt, says):
    folder = toy_photo.parent
    Image.new("L", (5, 5)).save(folder / "small.png")
    (folder / "text.npy").write_text("hello")
    np.save(folder / "wrong.npy", np.zeros((3, 3), np.float32))
    np.save(folder / "nan.npy", np.full((8, 8), np.nan, np.float32))
    np.savez(folder / "zip.npz", a=np.zeros(3))
    (folder / "zip.npz").rename(folder / "zip.npy")
    prompt = [part.format(photos=folder) for part in prompt]
    writes = ["--out", out / "mask.png", "--overlay", out / "overlay.png"]
    assert says in fails(capsys, out, "predict", toy_bundle, toy_photo, *prompt, *writes, "--json")


@pytest.mark.parametrize("content", [None, b"", b"just text\n", b"\x89PNG\r\n\x1a\n", "short"])
def test_a_picture_that_is_none(capsys, toy_bundle, toy_photo, out, content):
    path = toy_photo.with_name("other.png")
    if content == "short":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:5000])
    elif content is not None:
        path.write_bytes(content)
    arguments = ["predict", toy_bundle, path, "--point", "4,4", "--out", out / "mask.png"]
    assert "other.png" in fails(capsys, out, *arguments)


def test_damaged_pictures_never_end_in_a_traceback(capsys, toy_bundle, toy_photo, out):
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "gif", "tiff", "webp", "bmp"):
        path = toy_photo.with_name(f"other.{suffix}")
        Image.fromarray(toy.picture()).save(path)
        whole = path.read_bytes()
        for _ in range(12):
            damaged = bytearray(whole)
            for where in rng.integers(0, min(len(whole), 300), 4):
                damaged[where] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            assert main(["predict", str(toy_bundle), str(path), "--point", "1,1"]) in (0, 2)
    capsys.readouterr()


@pytest.mark.parametrize("option", ["--out", "--overlay"])
@pytest.mark.parametrize("name", ["none/mask.png", "", "x" * 300 + ".png", "mask.jpg"])
def test_a_place_that_cannot_be_written(capsys, toy_bundle, toy_photo, out, option, name):
    fails(capsys, out, "predict", toy_bundle, toy_photo, "--point", "4,4", option, out / name)


def test_one_file_for_two_pictures(capsys, toy_bundle, toy_photo, out):
    path = out / "one.png"
    arguments = ["predict", toy_bundle, toy_photo, "--point", "4,4", "--out", path, "--overlay", path]
    fails(capsys, out, *arguments)


def test_an_output_never_replaces_an_input(capsys, toy_bundle, toy_photo, out):
    before = toy_photo.read_bytes()
    for option in ("--out", "--overlay"):
        fails(capsys, out, "predict", toy_bundle, toy_photo, "--point", "4,4", option, toy_photo)
    assert toy_photo.read_bytes() == before


def test_numbered_masks_are_written_all_or_none(capsys, toy_bundle, toy_photo, tmp_path, out):
    folder = tmp_path / "masks"
    (folder / "m-2.png").mkdir(parents=True)
    arguments = ["predict", toy_bundle, toy_photo, "--point", "4,4", "--multimask", "--out", folder / "m.png"]
    fails(capsys, out, *arguments)
    assert [path.name for path in folder.iterdir()] == ["m-2.png"]
    (folder / "m-2.png").rmdir()
    fails(capsys, out, *arguments, "--overlay", folder / "m-1.png")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("logits", [np.zeros((1, 8, 8), complex), np.full((1, 8, 8), 1e300)])
def test_logits_of_another_kind(capsys, toy_bundle, toy_photo, tmp_path, out, logits):
    np.save(tmp_path / "mask.npy", logits)
    fails(capsys, out, "predict", toy_bundle, toy_photo, "--mask", tmp_path / "mask.npy")


def test_predict_json(capsys, toy_bundle, toy_photo, sam):
    arguments = ["predict", toy_bundle, toy_photo, "--box", "20,8,60,40", "--box", "4,4,60,20", "--json"]
    assert main([str(a) for a in arguments]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["image"] == str(toy_photo)
    assert (answer["backend"], answer["device"]) == ("onnxruntime", "cpu")
    boxes = [[20, 8, 60, 40], [4, 4, 60, 20]]
    found = sam.predict(sam.encode(toy.picture()), boxes=boxes, multimask_output=False)
    assert [row["prompt"] for row in answer["masks"]] == [0, 1]
    for row, mask, score in zip(answer["masks"], found.masks[:, 0], found.scores[:, 0], strict=True):
        theirs = {**row["rle"], "counts": row["rle"]["counts"].encode()}
        np.testing.assert_array_equal(coco.decode(theirs).astype(bool), mask)
        assert row["area"] == mask.sum() and row["score"] == pytest.approx(float(score))
        assert row["bbox"] == [int(v) for v in coco.toBbox(theirs)]


def test_predict_writes_masks_and_overlay(capsys, toy_bundle, toy_photo, out, sam):
    arguments = ["predict", toy_bundle, toy_photo, "--point", "40,24", "--out", out / "mask.png"]
    arguments += ["--overlay", out / "overlay.png"]
    assert main([str(a) for a in arguments]) == 0
    best = sam.predict(sam.encode(toy.picture()), [[40, 24]]).best()[0]
    with Image.open(out / "mask.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), best * np.uint8(255))
    with Image.open(out / "overlay.png") as picture:
        assert picture.size == (80, 48) and (np.asarray(picture) != toy.picture()).any()
    assert main([str(a) for a in arguments] + ["--multimask"]) == 0
    names = {"mask.png", "mask-0.png", "mask-1.png", "mask-2.png", "overlay.png"}
    assert {path.name for path in out.iterdir()} == names
    printed = capsys.readouterr().out
    assert "score" in printed
    assert printed.splitlines()[-4:] == [str(out / f"mask-{n}.png") for n in range(3)] + [
        str(out / "overlay.png")
    ]


def test_a_mask_prompt_from_a_picture_or_logits(capsys, toy_bundle, toy_photo):
    area = {}
    for name, value in (("all", 255), ("none", 0)):
        Image.new("L", (80, 48), value).save(toy_photo.with_name(f"{name}.png"))
        np.save(toy_photo.with_name(f"{name}.npy"), np.full((8, 8), value / 12 - 10, np.float32))
        for suffix in ("png", "npy"):
            mask = toy_photo.with_name(f"{name}.{suffix}")
            arguments = ["predict", str(toy_bundle), str(toy_photo), "--mask", str(mask), "--json"]
            assert main(arguments) == 0
            area[name, suffix] = json.loads(capsys.readouterr().out)["masks"][0]["area"]
    assert area["all", "png"] == area["all", "npy"] == 48 * 80
    assert area["none", "png"] == area["none", "npy"] == 0


def test_a_turned_photo_is_turned_back(toy_bundle, toy_photo, capsys):
    picture = Image.fromarray(toy.picture())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    picture.save(toy_photo, exif=exif)
    assert main(["predict", str(toy_bundle), str(toy_photo), "--point", "40,70", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["masks"][0]["rle"]["size"] == [80, 48]


def test_sixteen_bit_pictures_keep_their_contrast(tmp_path):
    from sam_edge.imaging.io import read_image

    deep = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    shallow = read_image(tmp_path / "deep.png")
    np.testing.assert_array_equal(shallow[..., 0], deep >> 8)


def test_verify(capsys, toy_bundle):
    assert main(["verify", str(toy_bundle), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["passed"] is True
    keys = {"id", "device", "mean_iou", "p5_iou", "min_iou", "boundary_iou", "passed"}
    assert keys <= set(answer["variants"][0]) and answer["variants"][0]["id"] == "onnx-fp32"
    assert main(["verify", str(toy_bundle)]) == 0
    assert "onnx-fp32" in capsys.readouterr().out


def test_verify_of_a_variant_below_its_gate(capsys, toy_copy):
    from sam_edge.bundle.golden import Golden, read_golden, write_golden

    golden = read_golden(toy_copy / "golden.npz")
    for prompt in golden.prompts:
        prompt.masks[:, ::2] = False
    write_golden(toy_copy / "golden.npz", Golden(golden.images, golden.embeddings, golden.prompts))
    toy.rewrite_manifest(toy_copy, lambda data: data.update(golden=toy._file(toy_copy, "golden.npz")))
    assert main(["verify", str(toy_copy), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert not answer["passed"] and answer["variants"][0]["mean_iou"] < 0.9


def test_verify_runs_the_variant_that_it_names(capsys, toy_copy, out):
    def change(data):
        data["variants"].append({**data["variants"][0], "id": "openvino-fp32", "format": "openvino"})

    toy.rewrite_manifest(toy_copy, change)
    assert main(["verify", str(toy_copy), "--backend", "onnxruntime", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in answer["variants"] if row["passed"]] == ["onnx-fp32"]
    assert "does not read openvino" in answer["variants"][1]["reason"]


@pytest.mark.parametrize("name", ["golden.npz", "onnx-fp32/encoder.onnx", "manifest.json"])
def test_verify_of_a_damaged_bundle(capsys, toy_copy, out, name):
    path = toy_copy / name
    path.write_bytes(path.read_bytes().replace(b"a", b"b"))
    assert name in fails(capsys, out, "verify", toy_copy)


def test_a_path_out_of_the_bundle(capsys, toy_copy, out):
    toy.rewrite_manifest(toy_copy, lambda data: data["golden"].update(path="../../etc/passwd"))
    assert "../../etc/passwd" in fails(capsys, out, "verify", toy_copy)


def test_info_devices_models(capsys, toy_bundle, monkeypatch):
    row = {"name": "toy", "family": "sam", "parameters": 1, "input_size": 64, "file": "toy.pth"}
    row |= {
        "encoder_gmacs": 0.1,
        "bytes": 1,
        "sha256": None,
        "license": "Apache-2.0",
        "source": "here",
        "embedded": True,
    }
    catalogue = types.SimpleNamespace(rows=lambda: [row])
    monkeypatch.setitem(sys.modules, "sam_edge.models", types.SimpleNamespace(catalogue=catalogue))
    monkeypatch.setitem(sys.modules, "sam_edge.models.catalogue", catalogue)
    for command in (["info", str(toy_bundle)], ["devices"], ["models"]):
        assert main(command) == 0
        assert capsys.readouterr().out
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "sam-edge 0.1.0\n"
    assert main(["--help"]) == main(["predict", "--help"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("arguments", [[], ["fly"], ["predict"], ["predict", "--json"]])
def test_usage(capsys, out, arguments):
    assert "--help" in fails(capsys, out, *arguments)
