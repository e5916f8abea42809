"""OpenVINO IR: FP32, FP16 and INT8 graphs agree with the PyTorch reference and hold what they claim."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from sam_edge.backends import openvino as backend
from sam_edge.backends.openvino import BACKEND, has_bf16
from sam_edge.errors import DeviceError, ExportError
from sam_edge.export.architectures.model import SamModel
from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.export.graphs import onnx, openvino
from sam_edge.export.quantize import openvino_int8
from sam_edge.export.quantize.onnx_int8 import encoder_stats
from sam_edge.models.catalogue import CATALOGUE, HERE, Decoder
from sam_edge.models.encoders import VitEncoder
from sam_edge.models.photos import PHOTOS, read_photo
from tests.support import ROOT, left_behind

# Imported by the exporter, without its telemetry.
ov = openvino.ov
TINY = CATALOGUE["sam_edge_tiny"]
VIT = replace(
    CATALOGUE["vit_b"],
    name="small",
    image_size=320,
    encoder=VitEncoder(embed_dim=48, depth=2, num_heads=3, global_attn_indexes=(1,)),
    decoder=Decoder(dim=32, mlp_dim=64, iou_head_hidden_dim=32),
)
FACTS = {"model": {"name": '<tiny> & "small"'}, "text": "a > < b\n", "precision": "fp32"}
PROMPTS = ("point_coords", "point_labels", "mask_input", "has_mask_input")


def pictures(model, count):
    """Encoder inputs: the middles of photographs, normalised."""
    side = model.image_size
    mean, std = np.array(model.preprocess.mean), np.array(model.preprocess.std)
    found = []
    for name in PHOTOS[:count]:
        photo = read_photo(name)[:side, :side]
        square = np.zeros((side, side, 3))
        square[: photo.shape[0], : photo.shape[1]] = (photo - mean) / std
        found.append(square.transpose(2, 0, 1)[None].astype(np.float32))
    return found


def random_vit():
    torch.manual_seed(0)
    sam = SamModel(VIT)
    for name, value in sam.named_parameters():
        if value.dim() >= 2:
            value.data = torch.randn_like(value) * (0.3 if "embed" in name or "rel_pos" in name else 0.15)
    return sam.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tiny(exported):
    """The model, its reference and the folder of its FP32 ONNX files."""
    return TINY, build_reference(load_checkpoint(HERE / TINY.checkpoint.file)), exported / "onnx-fp32"


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A small random ViT; the encoder only, as its decoder has nothing new."""
    sam = random_vit()
    folder = tmp_path_factory.mktemp("vit")
    onnx.write_encoder(sam, VIT, folder / "encoder.onnx")
    return VIT, sam, folder


def onnx_nodes(path):
    return onnx.onnx.load(path, load_external_data=False).graph.node


def run(path, **inputs):
    session = BACKEND.open(path, "cpu", 1)
    return session.run(inputs)


def relative_error(got, expected):
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@torch.inference_mode()
def embed(sam, picture):
    return sam.image_encoder(torch.from_numpy(picture)).numpy()


def prompts(model, n, k, seed=0):
    rng = np.random.default_rng(seed)
    grid = 4 * model.embedding_side
    arrays = (
        rng.uniform(0, model.image_size, (n, k, 2)),
        rng.integers(-1, 4, (n, k)),
        rng.normal(0, 5, (1, 1, grid, grid)),
        np.array([n % 2]),
    )
    return dict(zip(PROMPTS, (a.astype(np.float32) for a in arrays), strict=True))


@torch.inference_mode()
def decode(sam, embedding, given):
    masks, scores = sam.decode(torch.from_numpy(embedding), *(torch.from_numpy(given[p]) for p in PROMPTS))
    return masks.numpy(), scores.numpy()


def megabytes(folder):
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


def kinds(path):
    """Operators by type, and the types of those that take quantized activations."""
    model = ov.Core().read_model(path)
    counts, quantized = {}, {}
    for op in model.get_ops():
        kind = op.get_type_name()
        counts[kind] = counts.get(kind, 0) + 1
        if kind == "FakeQuantize":
            for target in op.output(0).get_target_inputs():
                quantized.setdefault(target.get_node().get_type_name(), []).append(
                    target.get_node().get_friendly_name()
                )
    return counts, quantized


LIMITS = pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-3), ("fp16", 2e-2)])


@LIMITS
@pytest.mark.parametrize("which", ["tiny", "vit"])
def test_the_encoder_is_reproduced(request, tmp_path, which, precision, limit):
    model, sam, source = request.getfixturevalue(which)
    openvino.write(source / "encoder.onnx", tmp_path / "encoder.xml", FACTS, precision)
    picture = pictures(model, 1)[0]
    got = run(tmp_path / "encoder.xml", images=picture)["image_embeddings"]
    assert relative_error(got, embed(sam, picture)) <= limit


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no BF16")
def test_a_bf16_encoder_is_computed_in_it(request, tmp_path):
    """Which has 8 bits of a number, so that the embedding says so."""
    model, sam, source = request.getfixturevalue("vit")
    facts = {**FACTS, "precision": "bf16"}
    openvino.write(source / "encoder.onnx", tmp_path / "encoder.xml", facts, "bf16")
    picture = pictures(model, 1)[0]
    got = run(tmp_path / "encoder.xml", images=picture)["image_embeddings"]
    assert 1e-3 < relative_error(got, embed(sam, picture)) < 0.1


def test_a_bf16_encoder_is_not_computed_in_something_else(request, tmp_path, monkeypatch):
    _, _, source = request.getfixturevalue("vit")
    openvino.write(source / "encoder.onnx", tmp_path / "encoder.xml", {**FACTS, "precision": "bf16"}, "bf16")
    monkeypatch.setattr(backend, "has_bf16", lambda: False)
    with pytest.raises(DeviceError, match=r"this CPU has no BF16.*load another precision"):
        BACKEND.open(tmp_path / "encoder.xml", "cpu", 1)


@LIMITS
@pytest.mark.parametrize("static", [True, False])
def test_the_decoder_is_reproduced_for_any_prompts(tiny, tmp_path, precision, limit, static):
    model, sam, source = tiny
    openvino.write(source / "decoder.onnx", tmp_path / "decoder.xml", FACTS, precision, static)
    embedding = embed(sam, pictures(model, 1)[0])
    decoder = BACKEND.open(tmp_path / "decoder.xml", "cpu", 1)
    for n in (1, 2, 3):
        for k in (1, 2, 3, 4, 5):
            given = prompts(model, n, k, seed=10 * n + k)
            masks, scores = decode(sam, embedding, given)
            outputs = decoder.run({"image_embeddings": embedding, **given})
            assert outputs["low_res_masks"].shape == masks.shape
            assert relative_error(outputs["low_res_masks"], masks) <= limit
            np.testing.assert_allclose(outputs["iou_predictions"], scores, atol=limit)


@pytest.mark.parametrize("static", [True, False])
def test_shapes_are_as_asked_for(tiny, tmp_path, static):
    model, _, source = tiny
    side, low = model.embedding_side, 4 * model.embedding_side
    openvino.write(source / "decoder.onnx", tmp_path / "decoder.xml", FACTS, static=static)
    inputs, outputs = openvino.tensors(tmp_path / "decoder.xml")
    n, k = (1, 2) if static else ("num_prompts", "num_points")
    assert {t["name"]: t["shape"] for t in inputs} == {
        "image_embeddings": [1, 128, side, side],
        "point_coords": [n, k, 2],
        "point_labels": [n, k],
        "mask_input": [1, 1, low, low],
        "has_mask_input": [1],
    }
    assert {t["name"]: t["shape"] for t in outputs} == {
        "low_res_masks": [n, 4, low, low],
        "iou_predictions": [n, 4],
    }
    assert {t["dtype"] for t in inputs + outputs} == {"float32"}


def test_the_facts_and_no_others_are_in_the_file(tiny, tmp_path):
    _, _, source = tiny
    path = tmp_path / "decoder.xml"
    for write in (openvino.write, openvino_int8.write_decoder_int8):
        write(source / "decoder.onnx", path, FACTS)
        model = ov.Core().read_model(path)
        assert json.loads(model.get_rt_info("sam_edge").astype(str)) == FACTS
        text = path.read_text()
        assert str(source) not in text and "conversion_parameters" not in text and "nncf" not in text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["decoder.bin", "decoder.xml"]


def test_an_export_is_repeatable(tiny, tmp_path):
    _, _, source = tiny
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        openvino.write(source / "decoder.onnx", tmp_path / name / "decoder.xml", FACTS, "fp16")
    one, two = ((tmp_path / name / "decoder.bin").read_bytes() for name in ("one", "two"))
    assert one == two


def test_small_constants_stay_in_float(tiny, tmp_path):
    _, sam, source = tiny
    kept = openvino.write(source / "decoder.onnx", tmp_path / "decoder.xml", FACTS, "fp16")
    assert kept
    # Two numbers, x and y, for each frequency; folded with the constants around it.
    matrix = sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.numpy().T
    model = ov.Core().read_model(tmp_path / "decoder.xml")
    constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    same = [op for op in constants if tuple(op.get_output_shape(0)) == matrix.shape]
    assert [op.get_element_type() for op in same] == [ov.Type.f32]
    np.testing.assert_allclose(same[0].data, matrix * (same[0].data / matrix)[0, 0], rtol=1e-5)
    large = {op.get_element_type() for op in constants if op.data.size > 10_000}
    assert large == {ov.Type.f16}


@pytest.fixture(scope="module")
def int8(tiny, tmp_path_factory):
    """The tiny model in FP32, FP16 and INT8, the stem in float."""
    model, _, source = tiny
    root = tmp_path_factory.mktemp("formats")
    for precision in ("fp32", "fp16", "int8"):
        (root / precision).mkdir()
    for precision in ("fp32", "fp16"):
        for part in ("encoder", "decoder"):
            openvino.write(source / f"{part}.onnx", root / precision / f"{part}.xml", FACTS, precision)
    kept = openvino_int8.write_encoder_int8(
        source / "encoder.onnx",
        root / "int8/encoder.xml",
        FACTS,
        encoder_stats(source / "encoder.onnx", pictures(model, 4)),
        keep_float=["node_conv2d", "node_conv2d_1"],
    )
    openvino_int8.write_decoder_int8(source / "decoder.onnx", root / "int8/decoder.xml", FACTS)
    return root, kept


def test_sizes(int8):
    root, _ = int8
    whole = megabytes(root / "fp32")
    assert megabytes(root / "fp16") <= 0.52 * whole
    assert megabytes(root / "int8") <= 0.32 * whole


def test_products_are_quantized_and_attention_is_not(int8):
    root, kept = int8
    assert {"node_conv2d", "node_conv2d_1"} <= set(kept)
    counts, quantized = kinds(root / "int8/encoder.xml")
    convolutions = quantized["Convolution"] + quantized["GroupConvolution"]
    assert len(convolutions) >= counts["Convolution"] + counts["GroupConvolution"] - 6
    assert not {"node_conv2d/WithoutBiases", "node_conv2d_1/WithoutBiases"} & set(convolutions)
    assert len(quantized["MatMul"]) == counts["MatMul"]
    assert not {"ScaledDotProductAttention", "Softmax", "MVN", "Gelu"} & quantized.keys()
    constants = ov.Core().read_model(root / "int8/encoder.xml").get_ops()
    assert (
        sum(op.get_element_type() == ov.Type.i8 for op in constants if op.get_type_name() == "Constant") > 40
    )


def test_the_size_does_not_depend_on_what_stays_in_float(tiny, int8, tmp_path):
    model, sam, source = tiny
    root, _ = int8
    names = [
        op.name for op in onnx_nodes(source / "encoder.onnx") if op.op_type in ("Conv", "Gemm", "MatMul")
    ]
    products = [name for name in names if "matmul" not in name]
    path = tmp_path / "encoder.xml"
    observed = encoder_stats(source / "encoder.onnx", pictures(model, 1))
    openvino_int8.write_encoder_int8(source / "encoder.onnx", path, FACTS, observed, products)
    assert not kinds(path)[1]
    assert megabytes(tmp_path) <= 1.02 * sum(f.stat().st_size for f in (root / "int8").glob("encoder*")) / 1e6
    picture = pictures(model, 1)[0]
    got = run(path, images=picture)["image_embeddings"]
    assert relative_error(got, embed(sam, picture)) <= 0.05


def test_int8_stays_near_the_reference(tiny, int8):
    model, sam, _ = tiny
    root, _ = int8
    picture = pictures(model, 5)[4]
    embedding = embed(sam, picture)
    got = run(root / "int8/encoder.xml", images=picture)["image_embeddings"]
    assert relative_error(got, embedding) <= 0.15
    given = prompts(model, 3, 4)
    masks, scores = decode(sam, embedding, given)
    outputs = run(root / "int8/decoder.xml", image_embeddings=embedding, **given)
    assert relative_error(outputs["low_res_masks"], masks) <= 0.05
    np.testing.assert_allclose(outputs["iou_predictions"], scores, atol=0.05)


def test_relative_positions_stay_in_float(vit, tmp_path):
    _, _, source = vit
    out = tmp_path / "int8.xml"
    observed = encoder_stats(source / "encoder.onnx", pictures(VIT, 2))
    openvino_int8.write_encoder_int8(source / "encoder.onnx", out, FACTS, observed, full_range=True)
    _, quantized = kinds(out)
    # qkv, proj and the MLP's two, for each of the two blocks.
    assert len(quantized["MatMul"]) == 8
    assert not {"ScaledDotProductAttention", "Softmax", "MVN", "Gelu"} & quantized.keys()


def test_what_cannot_be_quantized_is_said(tiny, tmp_path):
    model, _, source = tiny
    encoder, out = source / "encoder.onnx", tmp_path / "encoder.xml"
    with pytest.raises(ExportError, match="calibration images"):
        encoder_stats(encoder, [])
    observed = encoder_stats(encoder, pictures(model, 1))
    with pytest.raises(ExportError, match=r"no operator bogus .* like node_"):
        openvino_int8.write_encoder_int8(encoder, out, FACTS, observed, keep_float=["bogus"])
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(ExportError, match=r"cannot convert .*bad\.onnx"):
        openvino.write(tmp_path / "bad.onnx", out, FACTS)
    assert not out.exists()


def test_nothing_is_printed_or_reported(tiny, tmp_path):
    _, _, source = tiny
    code = f"""
import socket
def refuse(*_, **__):
    print("network")
    raise OSError("no network in this test")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from pathlib import Path
from sam_edge.export.graphs import openvino
from sam_edge.export.quantize import openvino_int8
source = Path({str(source / "decoder.onnx")!r})
openvino.write(source, Path("decoder.xml"), {{}}, "fp16")
openvino_int8.write_decoder_int8(source, Path("decoder.xml"), {{}})
"""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"HOME": str(home), "PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not left_behind(home, "openvino", "telemetry", "intel", "nncf")
