"""CLIP in a bundle, from a folder with random weights to masks by a text."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from transformers import CLIPModel, CLIPTokenizer

from sam_edge import BackendError, BundleError, IntegrityError, ParityError, PromptError, load
from sam_edge.axes import PRECISIONS
from sam_edge.bundle.golden import read_golden
from sam_edge.bundle.manifest import integrity, schema
from sam_edge.cli import main
from sam_edge.export.clip.variants import ClipExport, add_variant, read_clip
from sam_edge.export.context.options import Options
from sam_edge.models.photos import read_photo
from sam_edge.verify.clip_parity import read_clip_golden
from tests.support import ROOT
from tools.make_clip import END, SMALL

TEXTS = ["a photo of the dog", "THE CAT", "Ünïcode 12!", "the dog " * 30]


@pytest.fixture(scope="module")
def folder(clip_folder):
    return clip_folder


@pytest.fixture(scope="module")
def with_clip(six_variants):
    return six_variants


@pytest.fixture
def copy(with_clip, tmp_path):
    return shutil.copytree(with_clip, tmp_path / "copy")


def manifest(bundle):
    return json.loads((bundle / "manifest.json").read_text())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_features_of_texts_and_images_are_transformers(with_clip, folder, backend, precision):
    theirs, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    given = tokenizer(TEXTS, truncation=True, max_length=SMALL["context"], padding=True, return_tensors="pt")
    images = [read_photo("cat.jpg"), read_photo("astronaut.jpg")[:, :90]]
    with load(with_clip, backend=backend, precision=precision) as sam, torch.inference_mode():
        texts, pictures = sam.clip.encode_text(TEXTS), sam.clip.encode_images(images)
        wanted_texts = theirs.get_text_features(**given).pooler_output
        wanted_pictures = theirs.get_image_features(
            torch.from_numpy(np.concatenate([published(image) for image in images]))
        ).pooler_output
    for ours, wanted in ((texts, wanted_texts), (pictures, wanted_pictures)):
        right = (wanted / wanted.norm(dim=1, keepdim=True)).numpy()
        assert (ours * right).sum(1).min() >= PRECISIONS.get(precision).clip_gate
        if precision == "fp32" and ours is texts:
            assert np.abs(ours - right).max() < 1e-4
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)


def published(image):
    """Resize, CenterCrop, ToTensor, Normalize with Pillow."""
    side, (height, width) = SMALL["image"], image.shape[:2]
    short = min(height, width)
    picture = Image.fromarray(image).resize((side * width // short, side * height // short), 3)
    left, top = (round((length - side) / 2) for length in picture.size)
    x = np.asarray(picture.crop((left, top, left + side, top + side)), np.float32) / 255
    x = (x - (0.48145466, 0.4578275, 0.40821073)) / (0.26862954, 0.26130258, 0.27577711)
    return x.transpose(2, 0, 1)[None].astype(np.float32)


def test_the_manifest_describes_it(with_clip, exported):
    data = manifest(with_clip)
    assert jsonschema.Draft202012Validator(schema()).is_valid(data)
    clip = data["clip"]
    assert clip["image_size"] == 40 and clip["context_length"] == 20 and clip["end_of_text"] == END
    assert clip["mean"][0] == pytest.approx(122.77, abs=0.01)
    assert [v["id"] for v in clip["variants"]] == [v["id"] for v in data["variants"]]
    for variant in clip["variants"]:
        parity, precision = variant["parity"], variant["id"].rpartition("-")[2]
        assert parity["passed"] and parity["gate"] == PRECISIONS.get(precision).clip_gate
        assert min(parity["min_text_cosine"], parity["min_image_cosine"]) >= parity["gate"]
        assert parity["num_texts"] == 12 and parity["num_images"] == 4
        if precision == "int8":
            assert "only its weights are INT8" in variant["higher_precision_ops"][0]
    assert "clip" not in manifest(exported)
    sizes = [sum(file["bytes"] for file in variant["files"]) for variant in clip["variants"][:3]]
    assert sizes[0] > 1.5 * sizes[1] > sizes[2]


def test_verify_checks_it_without_torch(with_clip):
    code = "import sys; sys.modules.update(torch=None, onnx=None, tokenizers=None, transformers=None)\n"
    code += f"from sam_edge.cli import main; sys.exit(main(['verify', {str(with_clip)!r}, '--json']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["variants"]
    for row, recorded in zip(rows, manifest(with_clip)["clip"]["variants"], strict=True):
        assert row["clip"]["passed"]
        for name in ("min_text_cosine", "min_image_cosine"):
            assert row["clip"][name] == pytest.approx(recorded["parity"][name], abs=1e-4)


def test_verify_fails_where_the_features_differ(copy, capsys):
    path = copy / "clip/golden.npz"
    golden = read_clip_golden(path)
    np.savez(path, input_ids=golden.input_ids[::-1], text_features=golden.text_features,
             image_features=golden.image_features)  # fmt: skip
    data = manifest(copy)
    from sam_edge.system.files import sha256_file

    data["clip"]["golden"] |= {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    write(copy, data)
    assert main(["verify", str(copy)]) == 1
    assert "BELOW ITS GATE" in capsys.readouterr().out


def write(bundle, data):
    (bundle / "manifest.json").write_text(json.dumps({**data, "integrity": integrity(data)}))


FILES = ["tokenizer.json", "golden.npz", "onnx-fp32/text_encoder.onnx", "onnx-fp32/image_encoder.onnx"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found(copy, capsys, name):
    path = copy / "clip" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert main(["verify", str(copy)]) == 2
    assert f"clip/{name} is not the file that was exported" in capsys.readouterr().err
    if name != "golden.npz":
        with load(copy) as sam, pytest.raises(IntegrityError, match=os.path.basename(name)):
            sam.predict_text(read_photo("cat.jpg"), "a cat", masks=[])


@pytest.mark.parametrize("where", ["tokenizer", "golden", "file", "text_encoder", "image_encoder"])
@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "unlisted.onnx"])
def test_a_path_out_of_the_bundle_is_refused(copy, where, name):
    if name == "unlisted.onnx" and not where.endswith("_encoder"):
        return  # a file with its hash may be anywhere inside
    data = manifest(copy)
    clip = data["clip"]
    variant = clip["variants"][0]
    target = {**variant, **clip, "file": variant["files"][0]}[where]
    target["path"] = name
    write(copy, data)
    with pytest.raises(BundleError, match=name.replace(".", "\\.")):
        load(copy)


def test_predict_by_text_from_the_command_line(with_clip, tmp_path, capsys):
    picture, out, overlay = tmp_path / "p.png", tmp_path / "m.png", tmp_path / "o.png"
    Image.fromarray(read_photo("astronaut.jpg")[::2, ::2]).save(picture)
    command = ["predict", with_clip, picture, "--text", "the cat", "--top-k", "3"]
    assert main([*map(str, command), "--out", str(out), "--overlay", str(overlay), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    scores = [row["score"] for row in result["masks"]]
    assert result["text"] == "the cat" and result["backend"] == "onnxruntime"
    assert 0 < len(scores) <= 3 and scores == sorted(scores, reverse=True)
    for i, row in enumerate(result["masks"]):
        mask = coco.decode(row["rle"]).astype(bool)
        assert row["area"] == mask.sum() > 0
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"m-{i}.png")) > 127, mask)
    assert Image.open(overlay).size == Image.open(picture).size
    assert main([*map(str, command[:5])]) == 0
    assert "the cat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--text", "a", "--point", "5,5"], "cannot be combined with points"),
        (["--text", "a", "--multimask"], "cannot be combined with points"),
        (["--text", " "], "expected some words"),
        (["--text", "a", "--top-k", "0"], "--top-k is 0"),
        (["--text", "a", "--threshold", "nan"], "threshold is nan"),
        (["--text", "a", "--out", "m.jpg"], "ends in .png"),
        (["--point", "5,5", "--top-k", "3"], "apply only to --text"),
    ],
)
def test_bad_requests(with_clip, photo, capsys, arguments, says):
    assert main(["predict", str(with_clip), str(photo), *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_bundle_without_clip(exported, photo, capsys):
    assert main(["predict", str(exported), str(photo), "--text", "a cat"]) == 2
    assert "--clip FOLDER" in capsys.readouterr().err


def test_without_tokenizers_the_extra_is_named(with_clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with load(with_clip) as sam, pytest.raises(BackendError, match=r"sam-edge\[text\]"):
        sam.predict_text(read_photo("cat.jpg"), "a cat", masks=[])


def test_texts_that_are_none(with_clip):
    with load(with_clip) as sam:
        for texts in ("a cat", [b"a cat"], ["\ud800"]):
            with pytest.raises(PromptError):
                sam.clip.encode_text(texts)
        assert sam.clip.encode_text([]).shape == (0, SMALL["dim"])


def test_clip_opens_when_it_is_asked_for_and_closes_with_its_sam(with_clip):
    with load(with_clip) as sam:
        assert sam._graphs._clip is None
        clip = sam.clip
        assert sam.clip is clip
    with pytest.raises(BackendError, match="was closed"):
        clip.encode_text(["a"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--clip", "{tmp}/none"], "is not a folder"),
        (["--clip", "{tmp}"], "found none"),
    ],
)
def test_bad_export_requests(folder, tmp_path, capsys, arguments, says):
    arguments = [a.format(tmp=tmp_path, clip=folder) for a in arguments]
    assert main(["export", *arguments, "--out", str(tmp_path / "b")]) == 2
    assert says in capsys.readouterr().err and not os.listdir(tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_core_ml_packages_keep_the_features(folder, copy, precision):
    data, variant = manifest(copy), {"id": f"coreml-{precision}", "format": "coreml", "precision": precision}
    data["variants"].append(variant)
    images = read_golden(copy / "golden.npz").images
    shop = ClipExport(read_clip(folder), Options(), images, copy, lambda step: None)
    entry = add_variant(shop, variant, copy, data, {})
    assert entry["parity"]["passed"] and entry["parity"]["device"] in ("mil-reference", "cpu")
    (ids,) = entry["text_encoder"]["inputs"]
    assert ids == {"name": "input_ids", "dtype": "int32", "shape": [1, SMALL["context"]]}
    size = sum(file["bytes"] for file in entry["files"])
    assert size < {"fp32": 1e6, "fp16": 5e5, "int8": 4e5}[precision]


def test_the_examples_of_the_documentation(with_texts, tmp_path, monkeypatch):
    page = ROOT / "docs/guides/text.md"
    (tmp_path / "bundle").symlink_to(with_texts)
    Image.fromarray(read_photo("astronaut.jpg")).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    names = {}
    exec(compile(code, str(page), "exec"), names)
    names["sam"].close()
    assert names["scores"].shape == (len(names["masks"]), 2) and len(names["masks"]) > 0
    assert names["alone"].masks.shape == names["with_a_point"].masks.shape


def test_below_its_gate_it_is_refused(folder, copy, monkeypatch):
    stricter = replace(PRECISIONS.get("fp32"), clip_gate=1.1)
    monkeypatch.setitem(PRECISIONS._built_in(), "fp32", stricter)
    data, source = manifest(copy), read_clip(folder)
    shutil.rmtree(copy / "clip/onnx-fp32")
    images = read_golden(copy / "golden.npz").images
    shop = ClipExport(source, Options(), images, copy, lambda step: None)
    with pytest.raises(ParityError, match="does not make the reference's features: the least cosine"):
        add_variant(shop, data["variants"][0], copy, data, {})
