"""EfficientViT-SAM against its own code, with the same seeded weights.

`make_golden_efficientvit_sam.py` ran that code: the published L0 and a scaled-down XL are compared by value,
all five variants by the names and shapes of their tensors.
"""

import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from sam_edge.backends import mil_reference
from sam_edge.export.architectures.model import build_model
from sam_edge.export.checkpoints.read import build_reference, expected_shapes, load_checkpoint
from sam_edge.export.graphs import coreml, onnx, openvino
from sam_edge.export.optimize.fuse import fuse
from sam_edge.export.quantize import equalization as rewrites
from sam_edge.export.quantize import fp16
from sam_edge.export.quantize import onnx_int8 as int8
from sam_edge.models.catalogue import CATALOGUE
from sam_edge.models.encoders import EfficientVitEncoder, EfficientVitStage
from tools.golden.make_efficientvit_sam import GAIN, GOLDEN, SIZES, SMALL_XL, VARIANTS, epsilons
from tools.golden.seeded import apart, sampled, seeded_image, seeded_prompts, seeded_weights

KINDS = seeded_prompts(1024)


def small_xl():
    stem_width, *widths = SMALL_XL["width_list"]
    stem_depth, *depths = SMALL_XL["depth_list"]
    kinds = ("fmb", 4), ("fmb", 4), ("fmb", 4), ("att", 4), ("att", 6)
    stages = tuple(
        EfficientVitStage(block, width, depth, expand, kernel=3)
        for (block, expand), width, depth in zip(kinds, widths, depths, strict=True)
    )
    encoder = EfficientVitEncoder(
        stages, neck_depth=1, neck_expand=4, stem_depth=stem_depth, stem_width=stem_width
    )
    return replace(CATALOGUE["efficientvit_sam_xl0"], name="efficientvit_sam_small_xl", encoder=encoder)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as stored:
        return dict(stored)


@pytest.fixture(scope="module", params=SIZES)
def ours(request, golden, tmp_path_factory):
    """The oracle's name, the reference from a file as published, and its embeddings."""
    model = small_xl() if request.param == "small_xl" else CATALOGUE[f"efficientvit_sam_{request.param}"]
    path = tmp_path_factory.mktemp(request.param) / "checkpoint.pt"
    shapes = json.loads(str(golden["shapes"]))[request.param]
    torch.save({"state_dict": seeded_weights(shapes, GAIN)}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CATALOGUE, model.name, model)
        loaded = load_checkpoint(path)
    assert loaded.model == model and loaded.layout == "published"
    sam = build_reference(loaded)
    with torch.inference_mode():
        (embeddings,) = sam.encode(seeded_image(SIZES[request.param]))
    return request.param, sam, embeddings


def decoded(sam, embeddings, kind):
    points, boxes, masks = KINDS[kind]
    coords, labels = torch.zeros(2, 0, 2), torch.zeros(2, 0)
    if points is not None:
        coords, labels = points[0], points[1].float()
    if boxes is not None:
        coords = torch.cat([coords, boxes.reshape(2, 2, 2)], 1)
        labels = torch.cat([labels, torch.tensor([[2.0, 3.0]]).expand(2, 2)], 1)
    else:
        coords, labels = (
            torch.cat([coords, torch.zeros(2, 1, 2)], 1),
            torch.cat([labels, -torch.ones(2, 1)], 1),
        )
    given = torch.zeros(2, 1, 256, 256) if masks is None else masks
    with torch.inference_mode():
        return sam.decode(embeddings, coords, labels, given, torch.full((2,), float(masks is not None)))


@pytest.mark.parametrize("name", VARIANTS)
def test_names_and_shapes_are_the_oracles(golden, name):
    model = CATALOGUE[f"efficientvit_sam_{name}"]
    theirs = json.loads(str(golden["shapes"]))[name]
    assert expected_shapes(model) == {key: tuple(shape) for key, shape in theirs.items()}
    assert model.embedding_side == 64


def test_the_norms_epsilons_are_the_oracles(golden, ours):
    name, sam, _ = ours
    assert epsilons(sam) == json.loads(str(golden["epsilons"]))[name]


def test_the_encoder_is_the_oracles(golden, ours):
    name, _, embeddings = ours
    assert apart(sampled(embeddings), golden[f"{name}/embeddings"]) <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_is_the_oracles(golden, ours, kind):
    name, sam, embeddings = ours
    low, scores = decoded(sam, embeddings, kind)
    for multimask, kept in ((True, slice(1, 4)), (False, slice(0, 1))):
        theirs = f"{name}/{kind}/{multimask}"
        assert apart(sampled(low[:, kept]), golden[f"{theirs}/masks"]) <= 1e-4
        assert apart(scores[:, kept].numpy(), golden[f"{theirs}/scores"]) <= 1e-4


def test_fusing_changes_nothing(ours):
    name, sam, embeddings = ours
    fused = fuse(sam)
    assert not [m for m in fused.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.inference_mode():
        (found,) = fused.encode(seeded_image(SIZES[name]))
    assert apart(found.numpy(), embeddings.numpy()) <= 1e-4


def test_one_changed_weight_is_seen(golden, ours):
    name, sam, _ = ours
    gather = sam.image_encoder.backbone.stages[-1].op_list[-1].context_module.main.aggreg[0][0].weight
    gather[3] += 1.0
    with torch.inference_mode():
        (found,) = sam.encode(seeded_image(SIZES[name]))
    gather[3] -= 1.0
    assert apart(sampled(found), golden[f"{name}/embeddings"]) > 1e-4


EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
TINY = replace(
    CATALOGUE["efficientvit_sam_l0"],
    image_size=64,
    encoder=EfficientVitEncoder(
        tuple(
            EfficientVitStage(block, width, depth=1, expand=2)
            for block, width in (("fmb", 16), ("fmb", 16), ("mb", 32), ("att", 64))
        ),
        neck_depth=1,
        neck_expand=1,
        neck_width=32,
    ),
)


@pytest.fixture(scope="module")
def silent():
    """A tiny encoder whose first head has no query and whose second has no key, a picture, its embeddings."""
    sam = build_model(TINY).eval().requires_grad_(False)
    sam.load_state_dict(
        seeded_weights({key: tuple(value.shape) for key, value in sam.state_dict().items()}, GAIN)
    )
    attention = sam.image_encoder.backbone.stages[-1].op_list[-1].context_module.main
    attention.qkv.conv.weight[:32] = 0
    attention.qkv.conv.weight[96 + 32 : 96 + 64] = 0
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    rules = TINY.preprocess
    images = ((picture - np.array(rules.mean)) / np.array(rules.std)).astype(np.float32)
    images = np.ascontiguousarray(images.transpose(2, 0, 1)[None])
    with torch.inference_mode():
        (embeddings,) = sam.encode(torch.from_numpy(images))
    assert torch.isfinite(embeddings).all()
    return fuse(sam), picture, images, embeddings.numpy()


def run_onnx(path, images):
    return onnxruntime.InferenceSession(path).run(None, {"images": images})[0]


def test_a_head_without_queries_or_keys_in_onnx(silent, tmp_path):
    # Its divisor is zero: 0 / 0 unless the lower bound is kept, which FP16 does not have.
    sam, _, images, embeddings = silent
    onnx.write_encoder(sam, TINY, tmp_path / "fp32.onnx")
    assert apart(run_onnx(tmp_path / "fp32.onnx", images), embeddings) <= 1e-4
    kept = fp16.convert(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx", [{"images": images}])
    assert {"node_matmul", "node_matmul_1", "node_matmul_2", "node_sum_1", "node_clamp_min", "node_div"} <= {
        *kept
    }
    assert apart(run_onnx(tmp_path / "fp16.onnx", images), embeddings) <= 2e-2


def test_a_head_without_queries_or_keys_in_openvino(silent, tmp_path):
    import openvino as ov

    sam, _, images, embeddings = silent
    onnx.write_encoder(sam, TINY, tmp_path / "encoder.onnx")
    openvino.write(tmp_path / "encoder.onnx", tmp_path / "encoder.xml", {})
    found = ov.Core().compile_model(tmp_path / "encoder.xml", "CPU", EXACT)(images)[0]
    assert apart(found, embeddings) <= 1e-4


def test_a_head_without_queries_or_keys_in_core_ml(silent, tmp_path):
    sam, picture, _, embeddings = silent
    kept = coreml.write_encoder(sam, TINY, tmp_path / "fp16.mlpackage", {}, "fp16", 17)
    assert any("linear attention" in line for line in kept)
    given = {"image": picture[None], "resized_size": np.array([64, 64], np.float32)}
    found = mil_reference.load(tmp_path / "fp16.mlpackage").run(given)["image_embeddings"]
    assert apart(found, embeddings) <= 2e-2


def test_linear_attention_in_int8(silent, tmp_path):
    sam, _, images, embeddings = silent
    rewritten, _ = rewrites.rewrite(sam, [images])
    with torch.inference_mode():
        (found,) = rewritten.encode(torch.from_numpy(images))
    assert apart(found.numpy(), embeddings) <= 1e-4
    onnx.write_encoder(rewritten, TINY, tmp_path / "fp32.onnx")
    observed = int8.encoder_stats(tmp_path / "fp32.onnx", [images])
    int8.quantize_encoder(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", observed)
    assert apart(run_onnx(tmp_path / "int8.onnx", images), embeddings) <= 0.15


def test_onnx_runtime_fuses_the_activation(silent, tmp_path):
    sam, *_ = silent
    onnx.write_encoder(sam, TINY, tmp_path / "encoder.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(tmp_path / "encoder.onnx", options)
    kinds = {node.op_type for node in onnx.onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "FastGelu" in kinds and "Tanh" not in kinds
