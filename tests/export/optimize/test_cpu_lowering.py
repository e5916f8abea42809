"""A model lowered for CPUs is the published function, computed in other steps."""

from dataclasses import replace

import onnx
import openvino as ov
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sam_edge.cli import main
from sam_edge.export.architectures.lowering import lower
from sam_edge.export.architectures.model import build_model
from sam_edge.export.graphs import openvino
from sam_edge.export.graphs.onnx import write_encoder
from sam_edge.export.optimize.fuse import fuse
from sam_edge.export.optimize.tiling import RowTiledConvolutions, tile_slices
from sam_edge.models.catalogue import CATALOGUE
from sam_edge.models.encoders import TinyVitEncoder, VitEncoder
from tools.golden.seeded import apart, seeded_image, seeded_weights

VIT = replace(
    CATALOGUE["vit_b"],
    image_size=160,
    encoder=VitEncoder(32, depth=3, num_heads=2, global_attn_indexes=(1,), window_size=7),
)
TINY_VIT = replace(CATALOGUE["mobile_sam"], image_size=256)
assert isinstance(TINY_VIT.encoder, TinyVitEncoder)
MODELS = {"vit": VIT, "tiny_vit": TINY_VIT}


def seeded(model):
    sam = build_model(model).eval().requires_grad_(False)
    sam.load_state_dict(seeded_weights({key: value.shape for key, value in sam.state_dict().items()}))
    return fuse(sam)


@pytest.mark.parametrize("tile_mb", [1e-3, 0.05, 8.0])
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_embeddings_are_the_same(name, tile_mb):
    sam, image = seeded(MODELS[name]), seeded_image(MODELS[name].image_size)
    ours = lower(sam, "onnxruntime", tile_mb).image_encoder(image)
    assert apart(ours.numpy(), sam.image_encoder(image).numpy()) < 1e-5


@pytest.mark.parametrize("tile_mb", [1e-3, 0.05, 8.0])
@torch.inference_mode()
def test_embeddings_lowered_for_openvino_are_the_same(tile_mb):
    sam, image = seeded(TINY_VIT), seeded_image(TINY_VIT.image_size)
    ours = lower(sam, "openvino", tile_mb).image_encoder(image)
    assert apart(ours.numpy(), sam.image_encoder(image).numpy()) < 1e-5


@settings(max_examples=60)
@given(
    layers=st.lists(
        st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 2, 3])), min_size=1, max_size=3
    ),
    height=st.integers(12, 30),
    tile_mb=st.floats(1e-4, 1e-2),
)
@torch.inference_mode()
def test_row_tiled_convolutions_are_the_convolutions(layers, height, tile_mb):
    torch.manual_seed(0)
    made = [nn.Conv2d(4, 4, size, stride, size // 2) for size, stride in layers]
    image = torch.randn(1, 4, height, 9)
    expected = made[0](image)
    for one in made[1:]:
        expected = one(nn.functional.gelu(expected))
    found = RowTiledConvolutions(made, tile_mb)(image)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_padding_is_not_computed(name):
    sam, image = seeded(MODELS[name]), seeded_image(MODELS[name].image_size)

    def operations(one):
        with FlopCounterMode(display=False) as counter:
            one.image_encoder(image)
        return counter.get_total_flops()

    assert operations(lower(sam, "onnxruntime")) < operations(sam)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_openvino_fuses_gelu_into_row_tiled_convolutions(precision, tmp_path):
    source, path = tmp_path / "encoder.onnx", tmp_path / "encoder.xml"
    write_encoder(lower(seeded(TINY_VIT), "openvino", 0.5), TINY_VIT, source)
    openvino.write(source, path, {}, precision)
    compiled = ov.Core().compile_model(path, "CPU")
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
    assert kinds.count("Convolution") > 60
    # All of them: what is fused is named by the operator that it became a part of.
    gelus = {
        one.get_friendly_name()
        for one in ov.Core().read_model(path).get_ops()
        if one.get_type_name() == "Gelu"
    }
    for node in compiled.get_runtime_model().get_ops():
        if node.get_rt_info()["layerType"].astype(str) not in ("Convolution", "FullyConnected"):
            assert not gelus & set(node.get_rt_info()["originalLayersNames"].astype(str).split(","))


def test_less_memory_at_a_time_takes_more_operators(tmp_path):
    sam = seeded(VIT)
    counts = []
    for tile_mb in (0.01, 8.0):
        path = tmp_path / "encoder.onnx"
        write_encoder(lower(sam, "onnxruntime", tile_mb), VIT, path)
        counts.append(sum(node.op_type == "Softmax" for node in onnx.load(path).graph.node))
    assert counts[0] > counts[1]


def test_tiles_are_even_and_cover_everything():
    for total, each, limit in ((19, 0.73, 8), (5, 9.2, 8), (64, 1, 8), (1, 1, 1)):
        parts = list(tile_slices(total, each, limit))
        assert [i for part in parts for i in range(part.start, part.stop)] == list(range(total))
        sizes = [part.stop - part.start for part in parts]
        assert max(sizes) * each <= limit or max(sizes) == 1


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_tile_has_a_size(value, tmp_path, capsys):
    assert main(["export", "--chunk-mb", value, "--out", str(tmp_path / "b")]) == 2
    assert "expected a number of megabytes above 0" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_the_reference_is_left_as_it_is():
    sam = seeded(VIT)
    names = [type(module).__name__ for module in sam.modules()]
    lower(sam, "onnxruntime")
    assert names == [type(module).__name__ for module in sam.modules()]
