"""Core ML packages, run from disk in NumPy, against the PyTorch reference; and that a wrong one is caught."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sam_edge.backends.coreml import BACKEND
from sam_edge.backends.mil_reference import load
from sam_edge.errors import BackendError, DeviceError, ExportError
from sam_edge.export.architectures.model import SamModel
from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.export.graphs import coreml
from sam_edge.export.quantize import coreml_w8a8
from sam_edge.models.catalogue import CATALOGUE, HERE, Decoder
from sam_edge.models.encoders import VitEncoder
from sam_edge.models.photos import PHOTOS, read_photo
from tools.make_checkpoint import random_weights

TINY = CATALOGUE["sam_edge_tiny"]
SMALL_VIT = replace(
    CATALOGUE["vit_b"],
    name="small_vit",
    image_size=96,
    encoder=VitEncoder(32, 2, 2, (1,), window_size=4),
    decoder=Decoder(dim=32, num_heads=2, mlp_dim=32, iou_head_hidden_dim=32, mask_in_chans=8),
)
MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
PORTRAIT, LANDSCAPE = (0, 1.0, 0.6), (1, 0.7, 1.0)
ERRORS = {"fp32": 1e-3, "fp16": 2e-2, "int8": 5e-2}


def error(ours, reference):
    return float(np.linalg.norm(ours - reference) / np.linalg.norm(reference))


def size_of(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def seen(model, photo, tall, wide, colour=137):
    """The encoder's inputs, letterboxed in `colour`, and the normalised images of the reference."""
    side = model.image_size
    height, width = int(side * tall), int(side * wide)
    picture = Image.fromarray(read_photo(PHOTOS[photo])).resize((width, height), Image.Resampling.BILINEAR)
    resized = np.array(picture)
    boxed = np.full((1, side, side, 3), colour, np.uint8)
    boxed[0, :height, :width] = resized
    mean, std = torch.tensor(model.preprocess.mean), torch.tensor(model.preprocess.std)
    images = torch.zeros(1, 3, side, side)
    images[0, :, :height, :width] = ((torch.from_numpy(resized).float() - mean) / std).permute(2, 0, 1)
    return {"image": boxed, "resized_size": np.array([height, width], np.float32)}, images


def prompts(model, points, with_mask, seed=0):
    """A decoder's inputs for `points` points, the last of them padding; embeddings aside."""
    rng = np.random.default_rng(seed)
    side = 4 * model.embedding_side
    labels = rng.integers(0, 2, (1, points)).astype(np.float32)
    labels[0, points // 2 :] = -1 if points > 1 else 1
    mask = 8 * rng.standard_normal((1, 1, side, side)).astype(np.float32)
    return {
        "point_coords": rng.uniform(0, model.image_size, (1, points, 2)).astype(np.float32),
        "point_labels": labels,
        "mask_input": mask * with_mask,
        "has_mask_input": np.array([with_mask], np.float32),
    }


@torch.inference_mode()
def reference_decode(sam, embedding, given):
    low, scores = sam.decode(torch.from_numpy(embedding), *(torch.from_numpy(a) for a in given.values()))
    return low.numpy(), scores.numpy()


@torch.inference_mode()
def reference_encode(sam, images):
    return sam.image_encoder(images).numpy()


@pytest.fixture(scope="module")
def tiny():
    return build_reference(load_checkpoint(HERE / TINY.checkpoint.file))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    sam = SamModel(SMALL_VIT).eval().requires_grad_(False)
    for name, value in sam.named_parameters():
        if "rel_pos" in name or "pos_embed" in name or "norm" in name:
            value += 0.3 * torch.randn_like(value)
    return sam


@pytest.fixture(scope="module")
def packages(tiny, tmp_path_factory):
    """(precision, part) -> a package of the tiny model for iOS 17."""
    root = tmp_path_factory.mktemp("coreml")
    paths = {}
    for precision in coreml.PRECISIONS:
        for part in ("encoder", "decoder"):
            path = paths[precision, part] = root / f"{precision}-{part}.mlpackage"
            write = coreml.write_encoder if part == "encoder" else coreml.write_decoder
            kept = write(tiny, TINY, path, {"graph": part}, precision, 17)
            assert bool(kept) == (precision != "fp32")
    return paths


@pytest.mark.parametrize("precision", coreml.PRECISIONS)
@pytest.mark.parametrize("shape", [PORTRAIT, LANDSCAPE], ids=["portrait", "landscape"])
def test_the_encoder_makes_the_references_embedding(packages, tiny, precision, shape):
    given, images = seen(TINY, *shape)
    ours = load(packages[precision, "encoder"]).run(given)["image_embeddings"]
    assert ours.dtype == np.float32
    assert error(ours, reference_encode(tiny, images)) <= ERRORS[precision]


def test_the_colour_of_the_letterbox_does_not_matter(packages):
    program = load(packages["fp16", "encoder"])
    black, white = (
        program.run(seen(TINY, *PORTRAIT, colour=colour)[0])["image_embeddings"] for colour in (0, 255)
    )
    assert (black == white).all()


@pytest.mark.parametrize("precision", coreml.PRECISIONS)
def test_the_decoder_makes_the_references_masks(packages, tiny, precision):
    embedding = reference_encode(tiny, seen(TINY, *LANDSCAPE)[1])
    program = load(packages[precision, "decoder"])
    for points, with_mask in ((1, 0), (2, 0), (3, 1), (16, 1)):
        given = prompts(TINY, points, with_mask)
        low, scores = reference_decode(tiny, embedding, given)
        ours = program.run({"image_embeddings": embedding, **given})
        assert error(ours["low_res_masks"], low) <= ERRORS[precision]
        assert np.abs(ours["iou_predictions"] - scores).max() <= ERRORS[precision]


def test_halves_and_quarters_the_size(packages):
    sizes = {
        precision: sum(size_of(packages[precision, part]) for part in ("encoder", "decoder"))
        for precision in coreml.PRECISIONS
    }
    assert sizes["fp16"] <= 0.52 * sizes["fp32"]
    assert sizes["int8"] <= 0.32 * sizes["fp32"]
    for path in packages.values():
        files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
        assert files == {"Manifest.json", "Data/com.apple.CoreML/model.mlmodel", WEIGHTS}


@settings(max_examples=25)
@given(st.data())
def test_any_package_works_or_is_refused(packages, tmp_path, data):
    """Cut short or with bytes changed."""
    package = packages["int8", "decoder"]
    name = data.draw(st.sampled_from(["Manifest.json", MODEL, WEIGHTS]))
    content = bytearray((package / name).read_bytes())
    at = data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4))
    for place in at:
        content[place] = data.draw(st.integers(0, 255))
    if not at:
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    spoiled = shutil.copytree(package, tmp_path / "spoiled.mlpackage", dirs_exist_ok=True)
    (spoiled / name).write_bytes(content)
    embedding = np.zeros((1, TINY.decoder.dim, TINY.embedding_side, TINY.embedding_side), np.float32)
    try:
        with np.errstate(all="ignore"):
            session = BACKEND.open(spoiled, "cpu", None)
            session.run({"image_embeddings": embedding, **prompts(TINY, 2, 1)})
    except BackendError as refused:
        assert str(refused)


@pytest.mark.parametrize("place", ["../../secret", "/{root}/secret", "com.apple.CoreML/../../../secret"])
def test_a_package_cannot_name_a_model_outside(packages, tmp_path, place):
    package = shutil.copytree(packages["fp16", "decoder"], tmp_path / "decoder.mlpackage")
    (package / MODEL).rename(tmp_path / "secret")
    listed = json.loads((package / "Manifest.json").read_text())
    for entry in listed["itemInfoEntries"].values():
        if entry["name"] == "model.mlmodel":
            entry["path"] = place.format(root=str(tmp_path).lstrip("/"))
    (package / "Manifest.json").write_text(json.dumps(listed))
    with pytest.raises(BackendError, match="outside the package"):
        BACKEND.open(package, "cpu", None)


def test_a_package_cannot_take_weights_from_outside(packages, tmp_path):
    package = shutil.copytree(packages["fp16", "decoder"], tmp_path / "decoder.mlpackage")
    inside, outside = b"@model_path/weights/weight.bin", b"@model_path/weights/../../w.bi"
    assert len(inside) == len(outside)
    (package / MODEL).write_bytes((package / MODEL).read_bytes().replace(inside, outside))
    with pytest.raises(BackendError, match="reads weights from"):
        BACKEND.open(package, "cpu", None)


def test_describes_itself(packages):
    side, low = TINY.embedding_side, 4 * TINY.embedding_side
    inputs, outputs = coreml.tensors(packages["fp16", "encoder"])
    assert inputs == [
        {"name": "image", "dtype": "uint8", "shape": [1, TINY.image_size, TINY.image_size, 3]},
        {"name": "resized_size", "dtype": "float32", "shape": [2]},
    ]
    assert outputs == [{"name": "image_embeddings", "dtype": "float32", "shape": [1, 128, side, side]}]
    inputs, outputs = coreml.tensors(packages["int8", "decoder"])
    shapes = {tensor["name"]: tensor["shape"] for tensor in inputs + outputs}
    assert shapes == {
        "image_embeddings": [1, 128, side, side],
        "point_coords": [1, "num_points", 2],
        "point_labels": [1, "num_points"],
        "mask_input": [1, 1, low, low],
        "has_mask_input": [1],
        "low_res_masks": [1, 4, low, low],
        "iou_predictions": [1, 4],
    }
    assert {tensor["dtype"] for tensor in inputs + outputs} == {"float32"}
    assert coreml.read_facts(packages["int8", "decoder"]) == {"graph": "decoder"}


@pytest.mark.parametrize(("precision", "ios"), [("fp32", 16), ("fp16", 18), ("int8", 16), ("int8", 18)])
def test_a_vit_for_every_ios(small, tmp_path, capfd, precision, ios):
    path = tmp_path / "encoder.mlpackage"
    coreml.write_encoder(small, SMALL_VIT, path, {}, precision, ios)
    given, images = seen(SMALL_VIT, *PORTRAIT)
    ours = load(path).run(given)["image_embeddings"]
    assert capfd.readouterr() == ("", "")
    assert error(ours, reference_encode(small, images)) <= ERRORS[precision]


def test_a_model_that_resizes_without_antialiasing_takes_floats(small, tmp_path):
    path = tmp_path / "encoder.mlpackage"
    model = replace(SMALL_VIT, preprocess=replace(SMALL_VIT.preprocess, resize="stretch", antialias=False))
    coreml.write_encoder(small, model, path, {}, "fp32", 17)
    side = SMALL_VIT.image_size
    assert coreml.tensors(path)[0] == [{"name": "images", "dtype": "float32", "shape": [1, 3, side, side]}]
    _, images = seen(SMALL_VIT, *PORTRAIT)
    ours = load(path).run({"images": images.numpy()})["image_embeddings"]
    assert error(ours, reference_encode(small, images)) <= ERRORS["fp32"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_scores_that_are_stability(small, tmp_path, precision):
    path, model = tmp_path / "decoder.mlpackage", replace(SMALL_VIT, scores="stability")
    sam = SamModel(model).eval().requires_grad_(False)
    sam.load_state_dict(small.state_dict())
    for mlp in sam.mask_decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight *= 300
    coreml.write_decoder(sam, model, path, {}, precision, 17)
    given, embedding = prompts(model, 3, 1), reference_encode(small, seen(model, *PORTRAIT)[1])
    _, scores = reference_decode(sam, embedding, given)
    ours = load(path).run({"image_embeddings": embedding, **given})["iou_predictions"]
    assert scores.std() > ERRORS[precision]
    assert np.abs(ours - scores).max() <= ERRORS[precision]


def test_ios_18_lists_the_point_counts(small, tmp_path):
    path = tmp_path / "decoder.mlpackage"
    coreml.write_decoder(small, SMALL_VIT, path, {}, "fp16", 18)
    embedding = reference_encode(small, seen(SMALL_VIT, *PORTRAIT)[1])
    program = load(path)
    for points in (1, 2, 5):
        given = prompts(SMALL_VIT, points, 1)
        ours = program.run({"image_embeddings": embedding, **given})
        low, _ = reference_decode(small, embedding, given)
        assert error(ours["low_res_masks"], low) <= ERRORS["fp16"]
    points = coreml.point_counts(18)[-1] + 1
    with pytest.raises(BackendError, match="point_coords"):
        program.run({"image_embeddings": embedding, **prompts(SMALL_VIT, points, 0)})


def test_w8a8(small, tmp_path):
    path = tmp_path / "encoder.mlpackage"
    given, images = seen(SMALL_VIT, *LANDSCAPE)
    coreml_w8a8.write_encoder_w8a8(small, SMALL_VIT, path, {}, 17, [images.numpy()])
    program = load(path)
    kinds = program.histogram()
    assert kinds["quantize"] >= 8 and kinds["dequantize"] >= kinds["quantize"]
    assert error(program.run(given)["image_embeddings"], reference_encode(small, images)) <= 0.1


def test_what_cannot_be_written_is_refused(small, tmp_path):
    path = tmp_path / "e.mlpackage"
    for precision, ios, message in (("fp8", 17, "fp8"), ("fp16", 15, "iOS 15")):
        with pytest.raises(ExportError, match=message):
            coreml.write_encoder(small, SMALL_VIT, path, {}, precision, ios)
    with pytest.raises(ExportError, match="iOS 17"):
        coreml_w8a8.write_encoder_w8a8(small, SMALL_VIT, path, {}, 16, [np.zeros((1, 3, 96, 96), np.float32)])
    with pytest.raises(ExportError, match="calibration"):
        coreml_w8a8.write_encoder_w8a8(small, SMALL_VIT, path, {}, 17, [])
    grey = replace(SMALL_VIT, preprocess=replace(SMALL_VIT.preprocess, pad_value=1.0))
    with pytest.raises(ExportError, match="pads with"):
        coreml.write_encoder(small, grey, path, {}, "fp16", 17)
    assert not path.exists()


# The evaluator must be able to fail.


def spoiled(package, tmp_path, change):
    """A copy of `package` whose weight.bin went through `change`."""
    copy = shutil.copytree(package, tmp_path / "spoiled.mlpackage")
    weights = bytearray((copy / WEIGHTS).read_bytes())
    change(weights)
    (copy / WEIGHTS).write_bytes(weights)
    return copy


def place(weights, values):
    """Where these values lie in weight.bin."""
    found = weights.find(np.ascontiguousarray(values).tobytes())
    assert found >= 0
    return slice(found, found + values.nbytes)


def qkv(tiny, block, dtype):
    return tiny.image_encoder.blocks[block].qkv.weight.detach().numpy().astype(dtype)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", np.float32), ("fp16", np.float16)])
def test_two_swapped_weights_are_seen(packages, tiny, tmp_path, precision, dtype):
    def swap(weights):
        first, second = (place(weights, qkv(tiny, block, dtype)) for block in (0, 1))
        weights[first], weights[second] = weights[second], weights[first]

    given, images = seen(TINY, *LANDSCAPE)
    path = spoiled(packages[precision, "encoder"], tmp_path, swap)
    ours = load(path).run(given)["image_embeddings"]
    assert error(ours, reference_encode(tiny, images)) > 2 * ERRORS["fp16"]


def test_a_transposed_weight_is_seen(packages, tiny, tmp_path):
    def transpose(weights):
        square = tiny.image_encoder.blocks[0].proj.weight.detach().numpy().astype(np.float16)
        weights[place(weights, square)] = np.ascontiguousarray(square.T).tobytes()

    given, images = seen(TINY, *LANDSCAPE)
    path = spoiled(packages["fp16", "encoder"], tmp_path, transpose)
    ours = load(path).run(given)["image_embeddings"]
    assert error(ours, reference_encode(tiny, images)) > 2 * ERRORS["fp16"]


def test_an_overflow_is_seen(packages, tiny, tmp_path):
    def enlarge(weights):
        large = qkv(tiny, 0, np.float16)
        weights[place(weights, large)] = (large / np.abs(large).max() * np.float16(60000)).tobytes()

    given, _ = seen(TINY, *LANDSCAPE)
    path = spoiled(packages["fp16", "encoder"], tmp_path, enlarge)
    assert not np.isfinite(load(path).run(given)["image_embeddings"]).all()


# The backend


def test_the_backend_names_its_device(packages):
    session = BACKEND.open(packages["fp32", "encoder"], "auto", None)
    assert session.device == "mil-reference"
    assert session.run(seen(TINY, *PORTRAIT)[0])["image_embeddings"].shape[1] == 128
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run({})
    assert [device.available for device in BACKEND.devices()] == [True, False, False]
    for device in ("gpu", "npu"):
        with pytest.raises(DeviceError, match="Mac"):
            BACKEND.open(packages["fp32", "encoder"], device, None)
    with pytest.raises(DeviceError, match="abacus"):
        BACKEND.open(packages["fp32", "encoder"], "abacus", None)


DAMAGE = {
    "no weights": lambda path: (path / WEIGHTS).unlink(),
    "short weights": lambda path: (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:100_000]),
    "no weights inside": lambda path: (path / WEIGHTS).write_bytes(b""),
    "no graph": lambda path: (path / "Data/com.apple.CoreML/model.mlmodel").write_bytes(b""),
    "other graph": lambda path: (path / "Data/com.apple.CoreML/model.mlmodel").write_bytes(b"x" * 999),
    "no manifest": lambda path: (path / "Manifest.json").unlink(),
    "other manifest": lambda path: (path / "Manifest.json").write_text("{"),
    "nothing": shutil.rmtree,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_package_is_an_error(packages, tmp_path, kind):
    path = shutil.copytree(packages["fp16", "decoder"], tmp_path / "damaged.mlpackage")
    DAMAGE[kind](path)
    with pytest.raises(BackendError, match="damaged"):
        BACKEND.open(path, "cpu", None)


@pytest.mark.slow
def test_vit_b_at_full_size(tmp_path):
    model = CATALOGUE["vit_b"]
    sam = SamModel(model).eval().requires_grad_(False)
    sam.load_state_dict(random_weights("vit_b"))
    given, images = seen(model, *LANDSCAPE)
    expected = reference_encode(sam, images)
    coreml.write_encoder(sam, model, tmp_path / "e.mlpackage", {}, "fp16", 17)
    del sam
    assert error(load(tmp_path / "e.mlpackage").run(given)["image_embeddings"], expected) <= ERRORS["fp16"]
