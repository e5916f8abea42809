"""Statistics of observed tensors, and the bias correction that keeps a product's mean after rounding."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam_edge.export.quantize import onnx_int8 as int8
from sam_edge.export.quantize import qdq
from sam_edge.export.quantize.arithmetic import quantize_weight

RNG = np.random.default_rng(3)
WEIGHTS = {
    "conv": RNG.normal(size=(6, 3, 3, 3)),
    "conv bias": RNG.normal(size=6),
    "by group": RNG.normal(size=(6, 2, 1, 1)),
    "linear": RNG.normal(size=(6, 4)),
    "linear bias": RNG.normal(size=4),
}


def model():
    """A convolution, one of three groups, and a linear layer on its result, channels last."""
    nodes = [
        helper.make_node("Conv", ["images", "conv", "conv bias"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "by group"], ["c"], name="groups", group=3),
        helper.make_node("Transpose", ["c"], ["d"], name="last", perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["d", "linear"], ["e"], name="product"),
        helper.make_node("Add", ["e", "linear bias"], ["image_embeddings"], name="sum"),
    ]
    weights = WEIGHTS
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("images", TensorProto.FLOAT, [1, 3, 9, 9])],
        [tensor("image_embeddings", TensorProto.FLOAT, [1, 9, 9, 4])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(proto, image, outputs=None):
    if outputs:
        proto = onnx.ModelProto.FromString(proto.SerializeToString())
        del proto.graph.output[:]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    # As written: weights of 8 bits that are multiplied in integers overflow on x86 without VNNI.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"images": image})


@pytest.fixture(scope="module", params=[False, True], ids=["within", "external"])
def source(request, tmp_path_factory):
    """Weights in the file, or in one beside it, as those of models over 2 GB are."""
    path = tmp_path_factory.mktemp("qdq") / "encoder.onnx"
    onnx.save(model(), path, save_as_external_data=request.param, size_threshold=0)
    return path


@pytest.fixture(scope="module")
def images():
    return [RNG.normal(1, 2, size=(1, 3, 9, 9)).astype(np.float32) for _ in range(3)]


def test_observed_are_the_values_that_products_read(source, images):
    seen = int8.encoder_stats(source, images)
    assert set(seen) == {"images", "b", "d"}
    runs = [[image, *run(onnx.load(source), image, ["b", "d"])] for image in images]
    for (name, axes), values in zip(
        (("images", (0, 2, 3)), ("b", (0, 2, 3)), ("d", (0, 1, 2))), zip(*runs, strict=True), strict=True
    ):
        assert seen[name].low == pytest.approx(min(value.min() for value in values), rel=1e-5)
        assert seen[name].high == pytest.approx(max(value.max() for value in values), rel=1e-5)
        np.testing.assert_allclose(
            seen[name].mean, np.mean([value.mean(axes) for value in values], 0), atol=1e-5
        )
    assert [path.suffix for path in source.parent.iterdir()].count(".onnx") == 1


@pytest.mark.parametrize("full_range", [False, True])
def test_int8_makes_nearly_the_same_and_on_average_the_same(source, images, full_range, tmp_path):
    target = tmp_path / "int8.onnx"
    int8.quantize_encoder(source, target, int8.encoder_stats(source, images), full_range=full_range)
    exact, found = ([run(onnx.load(path), image)[0] for image in images] for path in (source, target))
    error, size = np.subtract(found, exact), np.std(exact)
    assert 0 < np.abs(error).mean() < 0.02 * size
    assert np.abs(error.mean((0, 1, 2, 3))).max() < 0.004 * size


def test_rounded_weights_do_not_move_the_mean(source, images):
    """The last product with coarse weights: its bias makes up for what they lose."""
    proto = onnx.load(source)
    graph = proto.graph
    seen = int8.encoder_stats(source, images)
    linear = next(one for one in graph.initializer if one.name == "linear")
    weight = numpy_helper.to_array(linear).copy()
    weight[0] *= 100  # so that the others have few steps left
    linear.CopyFrom(numpy_helper.from_array(weight, "linear"))
    exact = [run(proto, image)[0] for image in images]
    qdq.quantize(graph, source.parent, {"product"}, seen, full_range=True)
    moved = np.mean([run(proto, image)[0] for image in images], (0, 1, 2, 3)) - np.mean(exact, (0, 1, 2, 3))
    stored, scale = quantize_weight(weight, (1,))
    plain = (stored * scale - weight).T @ np.mean(
        [run(onnx.load(source), i, ["d"])[0] for i in images], (0, 1, 2, 3)
    )
    assert np.abs(moved).max() < 0.2 * np.abs(plain).max()
