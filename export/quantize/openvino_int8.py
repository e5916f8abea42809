"""INT8 in OpenVINO graphs: FakeQuantize ahead of products, and weights in INT8 with a scale for each channel.

It is what `qdq` makes of ONNX graphs, in the operators that OpenVINO has kernels for: one scale an
activation, one an output channel of weights, and biases that make up for what the weights' rounding loses on
average.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sam_edge.backends.openvino import no_telemetry
from sam_edge.errors import ExportError

from ..graphs.openvino import compress_to_fp16, convert_onnx, save
from . import qdq
from .qdq import STEPS, STEPS_OF_7_BITS, Observed, moved_by, to_int8

with no_telemetry():
    from openvino import opset13 as ops

BARE = "/WithoutBiases"
PRODUCTS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
SMALL_WEIGHT = 4096


def is_constant(value: Any) -> bool:
    """Whether an input's value is a Constant."""
    return bool(value.get_node().get_type_name() == "Constant")


def products(model: Any) -> list[Any]:
    """The operators of `PRODUCTS` whose second input is a constant, in order."""
    return [
        op
        for op in model.get_ordered_ops()
        if op.get_type_name() in PRODUCTS and is_constant(op.input_value(1))
    ]


def quantize(model: Any, observed: Mapping[str, Observed], steps: int) -> None:
    """Let products compute in INT8, in place.

    Args:
        model: FP32.
        observed: the values of what each of these reads, by its name but for `BARE`.
        steps: the largest whole number of a weight.
    """
    rounded: dict[tuple[str, int], Any] = {}
    for op in products(model):
        values = observed.get(op.get_friendly_name().removesuffix(BARE))
        if values is None:
            continue
        error = _store(op, steps)
        _correct_bias(op, moved_by(error, values.mean))
        source = op.input_value(0)
        key = source.get_node().get_friendly_name(), source.get_index()
        if key not in rounded:
            rounded[key] = _rounded(source, values)
        op.input(0).replace_source_output(rounded[key])


def store_weights(model: Any, axes: int) -> None:
    """Weights that are still in FP32 to INT8, but for small ones, of depthwise convolutions say, which lose
    most; computation stays in float. Products with a batch of more than `axes` axes of weights are left."""
    for op in products(model):
        weight = op.input_value(1).get_node()
        large = weight.data.size >= SMALL_WEIGHT
        if large and (op.get_type_name() != "MatMul" or len(weight.get_output_shape(0)) <= axes):
            _store(op, STEPS)


def store_tables(model: Any) -> None:
    """Tables of positions, which are added to the tokens, as INT8 with a scale for each token."""
    for op in model.get_ops():
        if op.get_type_name() != "Constant" or op.data.size <= SMALL_WEIGHT:
            continue
        readers = list(op.output(0).get_target_inputs())
        if all(reader.get_node().get_type_name() == "Add" for reader in readers):
            table = np.array(op.data, np.float32)
            stored = _restored(*to_int8(table, tuple(range(table.ndim - 1))))
            for reader in readers:
                reader.replace_source_output(stored)


def _restored(whole: NDArray[np.int8], scale: NDArray[np.float32]) -> Any:
    return ops.multiply(ops.convert(ops.constant(whole), "f32"), ops.constant(scale)).output(0)


def _output_axes(op: Any, axes: int) -> tuple[int, ...]:
    """The axes of a product's weights whose slices have scales of their own."""
    kind = op.get_type_name()
    if kind == "MatMul":
        # Of a matrix for each head, every row: columns have no scales that kernels know.
        if axes > 2:
            return tuple(range(axes - 1))
        return (axes - 2 if op.get_attributes()["transpose_b"] else axes - 1,)
    return {"Convolution": (0,), "GroupConvolution": (0, 1), "ConvolutionBackpropData": (1,)}[kind]


def _store(op: Any, steps: int) -> NDArray[np.float32]:
    """Store a product's weights in INT8; returns what that adds to them, (outputs, inputs of a group, ..)."""
    weight = np.array(op.input_value(1).get_node().data, np.float32)
    axes = _output_axes(op, weight.ndim)
    whole, scale = to_int8(weight, axes, steps)
    op.input(1).replace_source_output(_restored(whole, scale))
    error = whole * scale - weight
    if op.get_type_name() == "MatMul":
        return error if axes == (0,) else np.moveaxis(error, -1, 0)
    return error.reshape(-1, *error.shape[2:]) if op.get_type_name() == "GroupConvolution" else error


def _correct_bias(op: Any, moved: NDArray[np.float64]) -> None:
    """Take what a product moves by off the constant that is added to it, if there is one."""
    readers = list(op.output(0).get_target_inputs())
    if len(readers) != 1 or readers[0].get_node().get_type_name() != "Add":
        return
    add = readers[0].get_node()
    other = 1 - readers[0].get_index()
    value = add.input_value(other)
    if is_constant(value) and value.get_node().data.size == moved.size:
        bias = np.array(value.get_node().data, np.float32)
        corrected = (bias - moved.reshape(bias.shape)).astype(np.float32)
        add.input(other).replace_source_output(ops.constant(corrected).output(0))


def _rounded(source: Any, values: Observed) -> Any:
    """A tensor rounded to a byte within the range of its values, which includes 0."""
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    scale = max((high - low) / 255, float(np.finfo(np.float32).tiny))
    zero = np.rint(-low / scale)
    ends = [ops.constant(np.float32(end)) for end in (-zero * scale, (255 - zero) * scale)]
    return ops.fake_quantize(source, *ends, *ends, 256).output(0)


def write_encoder_int8(
    source: Path,
    path: Path,
    facts: Mapping[str, Any],
    observed: Mapping[str, qdq.Observed],
    keep_float: Collection[str] = (),
    full_range: bool = False,
) -> list[str]:
    """Quantise weights and activations of the encoder's convolutions and linear layers to INT8.

    Attention (scores, softmax, values), LayerNorm and GELU stay in float.

    Args:
        source: the encoder's FP32 ONNX file.
        path: the .xml to write; the .bin goes beside it.
        facts: go into the file.
        observed: `onnx_int8.observe_products` of it.
        keep_float: names of ONNX nodes to compute in float too; only their larger weights are stored in
            INT8, so that the file hardly grows.
        full_range: use all 8 bits of a weight. Without VNNI, x86 adds pairs of products in 16 bits, which
            then overflow, so that the default is half of the range.

    Returns:
        what stayed in float, for the manifest.

    Raises:
        ExportError: a name that is not in the graph, or a failed conversion.
    """
    model = convert_onnx(source, static=True)
    _check_names(model, source, keep_float)
    nodes = qdq.quantisable(onnx.load(source, load_external_data=False).graph)
    ranges = {node.name: observed[node.input[0]] for node in nodes if node.name not in keep_float}
    quantize(model, ranges, STEPS if full_range else STEPS_OF_7_BITS)
    store_weights(model, axes=2)
    store_tables(model)
    save(compress_to_fp16(model, path.parent), path, facts)
    return ["attention scores, softmax and values", "LayerNorm", "GELU", *sorted(set(keep_float))]


def write_decoder_int8(source: Path, path: Path, facts: Mapping[str, Any], static: bool = True) -> list[str]:
    """Store the decoder's weights in INT8; activations stay in float. `static` is as in `write`.

    Returns:
        what stayed in float, for the manifest.

    Raises:
        ExportError: a failed conversion.
    """
    model = convert_onnx(source, static)
    store_weights(model, axes=4)
    save(compress_to_fp16(model, path.parent), path, facts)
    return ["activations of the decoder"]


def _check_names(model: Any, source: Path, names: Collection[str]) -> None:
    """Raise `ExportError` where the ONNX nodes `names` are not all operators of the model."""
    graph = onnx.load(source, load_external_data=False).graph
    known = [node.name for node in graph.node]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ExportError(
            f"{source.name} has no operator {', '.join(unknown)} to keep in float; its operators are called "
            f"like {', '.join(known[:3])}"
        )
    weighted = {node.name for node in qdq.quantisable(graph)}
    found = {op.get_friendly_name().removesuffix(BARE) for op in model.get_ops()}
    lost = sorted(set(names) & weighted - found)
    if lost:
        raise ExportError(f"OpenVINO fused {', '.join(lost)} of {source.name} away; it cannot stay in float")
