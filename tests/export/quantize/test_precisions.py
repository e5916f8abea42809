"""ONNX in FP16 and INT8: what is kept where, and how far the embedding moves."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from sam_edge.bundle.manifest import read_manifest
from sam_edge.export.graphs.onnx import write_encoder
from sam_edge.export.quantize import fp16
from sam_edge.export.quantize import onnx_int8 as int8
from sam_edge.export.quantize.calibration import packaged_calibration
from sam_edge.export.quantize.sensitivity import limit_to_weight_share, rank_by_sensitivity
from sam_edge.models.catalogue import CATALOGUE
from tests.export.optimize.test_rewrites import SMALL_VIT, small_vit


@pytest.fixture(scope="module")
def images(exported):
    return packaged_calibration(read_manifest(exported).input).images[:5]


@pytest.fixture(scope="module")
def encoder(exported):
    return exported / "onnx-fp32" / "encoder.onnx"


@pytest.fixture(scope="module")
def observed(encoder, images):
    return int8.encoder_stats(encoder, images)


def run(path, image, as_written=False):
    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": image})[0]


def error(path, exact, images, as_written=False):
    pairs = [(run(path, image, as_written), run(exact, image)) for image in images[:2]]
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs)


def casts(graph, kind):
    return [n for n in graph.node if n.op_type == "Cast" and onnx.helper.get_node_attr_value(n, "to") == kind]


def test_fp16_keeps_fp32_at_its_ends_and_where_it_would_overflow(encoder, images, tmp_path):
    kept = fp16.convert(encoder, tmp_path / "half.onnx", [{"images": image} for image in images])
    graph = onnx.load(tmp_path / "half.onnx").graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    norms = {node.name for node in graph.node if node.op_type == "LayerNormalization"}
    assert norms and norms <= set(kept)
    assert (tmp_path / "half.onnx").stat().st_size <= 0.52 * encoder.stat().st_size
    assert error(tmp_path / "half.onnx", encoder, images) < 2e-3
    # Nothing passes through FP16 on its way between two FP32 nodes.
    halved = {node.output[0] for node in casts(graph, TensorProto.FLOAT16)}
    assert not [node for node in casts(graph, TensorProto.FLOAT) if node.input[0] in halved]


def test_squares_beyond_fp16_do_not_reach_it(encoder, images, tmp_path):
    """LayerNorm2d does not see the scale of its input; FP16 does."""
    proto = onnx.load(encoder)
    first_norm = next(node for node in proto.graph.node if node.op_type == "ReduceMean")
    conv = next(node for node in proto.graph.node if first_norm.input[0] in node.output)
    weight = next(t for t in proto.graph.initializer if t.name == conv.input[1])
    weight.CopyFrom(numpy_helper.from_array(50 * numpy_helper.to_array(weight), weight.name))
    onnx.save(proto, tmp_path / "loud.onnx")
    assert error(tmp_path / "loud.onnx", encoder, images) < 1e-3
    fp16.convert(tmp_path / "loud.onnx", tmp_path / "half.onnx", [{"images": image} for image in images])
    assert error(tmp_path / "half.onnx", encoder, images) < 5e-3


def test_what_comes_near_the_largest_fp16_number_stays_in_fp32(tmp_path):
    def graph(scale):
        nodes = [
            onnx.helper.make_node("Mul", ["images", "scale"], ["large"], name="grow"),
            onnx.helper.make_node("Div", ["large", "scale"], ["y"], name="shrink"),
        ]
        tensor = onnx.helper.make_tensor_value_info
        return onnx.helper.make_graph(
            nodes,
            "g",
            [tensor("images", TensorProto.FLOAT, [1, 4])],
            [tensor("y", TensorProto.FLOAT, [1, 4])],
            [numpy_helper.from_array(np.array(scale, np.float32), "scale")],
        )

    given = np.array([[1, 2, 3, 4]], np.float32)
    for scale, expected in ((1e5, ["grow", "shrink"]), (2.0, [])):
        model = onnx.helper.make_model(
            graph(scale), opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
        )
        onnx.save(model, tmp_path / "g.onnx")
        kept = fp16.convert(tmp_path / "g.onnx", tmp_path / "half.onnx", [{"images": given}])
        assert kept == expected
        np.testing.assert_allclose(run(tmp_path / "half.onnx", given), given, rtol=1e-3)


def weights_of(path, operator):
    """The weights that are read through such operators."""
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return [constants[n.input[0]] for n in graph.node if n.op_type == operator and n.input[0] in constants]


def optimised(path, folder):
    """The graph as ONNX Runtime runs it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx").graph


def test_int8_quantizes_every_product_but_those_kept(encoder, images, observed, tmp_path):
    names = int8.quantizable_names(encoder)
    kept = names[:2]
    safe, full = tmp_path / "7_bits.onnx", tmp_path / "8_bits.onnx"
    int8.quantize_encoder(encoder, safe, observed, kept)
    int8.quantize_encoder(encoder, full, observed, kept, full_range=True)
    for path, largest in ((safe, 63), (full, 127)):
        integers, floats = (weights_of(path, operator) for operator in ("DequantizeLinear", "Cast"))
        assert len(integers) + len(floats) == len(names) - 2
        assert {weight.dtype for weight in integers + floats} == {np.dtype(np.int8)}
        assert max(np.abs(weight.astype(int)).max() for weight in integers) == largest
        assert max(np.abs(weight.astype(int)).max() for weight in floats) == 127
    assert safe.stat().st_size < 0.32 * encoder.stat().st_size
    # In integers 8 bits overflow on x86 without VNNI; 7 do not, and give what the graph says.
    by_format = error(safe, encoder, images, as_written=True)
    assert 1e-4 < error(full, encoder, images, as_written=True) < by_format < 0.15
    assert error(safe, encoder, images) == pytest.approx(by_format, rel=0.05)
    graph = onnx.load(safe).graph
    scales = {tensor.name: tensor.dims for tensor in graph.initializer}
    activations = [scales[n.input[1]] for n in graph.node if n.op_type == "QuantizeLinear"]
    assert activations and all(np.prod(dims, initial=1) == 1 for dims in activations)


def test_onnx_runtime_multiplies_int8_in_integers(encoder, observed, tmp_path):
    """Not in float, with weights converted in every run, as it does for what it does not recognise."""
    int8.quantize_encoder(encoder, tmp_path / "int8.onnx", observed)
    linear = sum(node.op_type == "Gemm" for node in onnx.load(encoder).graph.node)
    kinds = [node.op_type for node in optimised(tmp_path / "int8.onnx", tmp_path).node]
    assert linear and kinds.count("MatMulIntegerToFloat") == linear
    assert "Gemm" not in kinds


def test_what_runs_in_float_reads_weights_that_were_made_once(encoder, exported, observed, tmp_path):
    """When a graph is loaded, and not in every run."""
    int8.quantize_encoder(encoder, tmp_path / "encoder.onnx", observed)
    int8.compress_decoder(exported / "onnx-fp32" / "decoder.onnx", tmp_path / "decoder.onnx")
    for name in ("encoder.onnx", "decoder.onnx"):
        assert weights_of(tmp_path / name, "Cast")
        graph = optimised(tmp_path / name, tmp_path)
        small = {t.name for t in graph.initializer if t.data_type in (TensorProto.INT8, TensorProto.UINT8)}
        assert small.isdisjoint(n.input[0] for n in graph.node if n.op_type in ("Cast", "DequantizeLinear"))


def test_convolutions_read_what_was_not_rounded(encoder, observed, tmp_path):
    """They are computed in float, with weights of INT8."""
    int8.quantize_encoder(encoder, tmp_path / "int8.onnx", observed)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    made = {node.output[0]: node.op_type for node in graph.node}
    read = [[made.get(name) for name in node.input[:2]] for node in graph.node if node.op_type == "Conv"]
    assert read and all(before != "DequantizeLinear" and weight == "Mul" for before, weight in read)
    assert "QLinearConv" not in {node.op_type for node in optimised(tmp_path / "int8.onnx", tmp_path).node}
    # As other runtimes have them, which the ranking is for, too.
    int8.quantize_encoder(encoder, tmp_path / "all.onnx", observed, round_conv_inputs=True)
    graph = onnx.load(tmp_path / "all.onnx").graph
    made = {node.output[0]: node.op_type for node in graph.node}
    assert all(made[node.input[0]] == "DequantizeLinear" for node in graph.node if node.op_type == "Conv")


def test_windows_and_relative_positions_run_in_int8(tmp_path):
    """Of a ViT's attention only the linear layers are in INT8: ONNX Runtime has no kernel for more."""
    sam, side = small_vit(), SMALL_VIT.image_size
    write_encoder(sam, SMALL_VIT, tmp_path / "e.onnx")
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(1, 3, side, side)).astype(np.float32) for _ in range(3)]
    observed = int8.encoder_stats(tmp_path / "e.onnx", images)
    int8.quantize_encoder(tmp_path / "e.onnx", tmp_path / "int8.onnx", observed)
    # Patches, four layers a block, two of the neck.
    assert len(int8.quantizable_names(tmp_path / "e.onnx")) == 1 + 4 * SMALL_VIT.encoder.depth + 2
    assert error(tmp_path / "int8.onnx", tmp_path / "e.onnx", images) < 0.1
    ranking = rank_by_sensitivity(tmp_path / "e.onnx", tmp_path, images[:1], observed, lambda _: None)
    assert sorted(ranking) == sorted(int8.quantizable_names(tmp_path / "e.onnx"))


def test_the_decoders_weights_are_stored_in_int8(exported, tmp_path):
    decoder = exported / "onnx-fp32" / "decoder.onnx"
    int8.compress_decoder(decoder, tmp_path / "d.onnx")
    assert (tmp_path / "d.onnx").stat().st_size < 0.35 * decoder.stat().st_size
    rng = np.random.default_rng(0)
    side = CATALOGUE["sam_edge_tiny"].embedding_side
    given = {
        "image_embeddings": rng.normal(size=(1, 128, side, side)),
        "point_coords": rng.uniform(0, 16 * side, (2, 3, 2)),
        "point_labels": np.array([[1, 0, -1], [2, 3, 1]]),
        "mask_input": np.zeros((1, 1, 4 * side, 4 * side)),
        "has_mask_input": np.zeros(1),
    }
    given = {name: value.astype(np.float32) for name, value in given.items()}
    found, exact = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, given)
        for path in (tmp_path / "d.onnx", decoder)
    )
    for a, b in zip(found, exact, strict=True):
        assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(b)
    # Computed in float, and so the same however ONNX Runtime optimises it.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(tmp_path / "d.onnx", options, providers=["CPUExecutionProvider"])
    for a, b in zip(found, plain.run(None, given), strict=True):
        assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b)


def test_a_budget_of_weights_is_kept_to(encoder):
    names = int8.quantizable_names(encoder)
    assert limit_to_weight_share(encoder, names, 1.0) == names
    few = limit_to_weight_share(encoder, names, 0.02)
    assert names[0] in few and len(few) < len(names)
    assert limit_to_weight_share(encoder, names, 0.0) == []
