"""INT8 in OpenVINO graphs: FakeQuantize before convolutions and matmuls, and INT8 weights.

The same arithmetic as `qdq` in ONNX graphs, in the operators for which OpenVINO has kernels: one scale per
activation, one per output channel of weights, and corrected biases.
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
from .arithmetic import (
    QMAX_INT7,
    QMAX_INT8,
    SMALLEST_SCALE,
    ActivationStats,
    bias_correction,
    quantize_weight,
)

with no_telemetry():
    from openvino import opset13 as ops

# OpenVINO appends this to the name of an ONNX node whose bias becomes an operator of its own.
BARE = "/WithoutBiases"
WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
SMALL_WEIGHT = 4096


def is_constant(value: Any) -> bool:
    """Whether an input reads a Constant."""
    return bool(value.get_node().get_type_name() == "Constant")


def weighted_operators(model: Any) -> list[Any]:
    """The convolutions and matmuls whose second input is a constant, in topological order."""
    return [
        op
        for op in model.get_ordered_ops()
        if op.get_type_name() in WEIGHTED and is_constant(op.input_value(1))
    ]


def quantize(model: Any, stats: Mapping[str, ActivationStats], qmax: int) -> None:
    """Quantize convolutions and matmuls, in place.

    Args:
        model: FP32.
        stats: statistics of the input of each operator to quantize, by its name without `BARE`.
        qmax: largest magnitude of an integer weight.
    """
    rounded: dict[tuple[str, int], Any] = {}
    for op in weighted_operators(model):
        values = stats.get(op.get_friendly_name().removesuffix(BARE))
        if values is None:
            continue
        error = _store(op, qmax)
        _correct_bias(op, bias_correction(error, values.mean))
        source = op.input_value(0)
        key = source.get_node().get_friendly_name(), source.get_index()
        if key not in rounded:
            rounded[key] = _fake_quantize(source, values)
        op.input(0).replace_source_output(rounded[key])


def store_weights(model: Any, axes: int) -> None:
    """Store the remaining FP32 weights in INT8, in place; computation stays in float.

    Small weights stay in FP32: depthwise convolutions, for example, lose most and weigh least.

    Args:
        model: FP32, or quantized.
        axes: matmuls whose weights have more axes than this are left.
    """
    for op in weighted_operators(model):
        weight = op.input_value(1).get_node()
        large = weight.data.size >= SMALL_WEIGHT
        if large and (op.get_type_name() != "MatMul" or len(weight.get_output_shape(0)) <= axes):
            _store(op, QMAX_INT8)


def store_tables(model: Any) -> None:
    """Store tables of position embeddings in INT8 with one scale per token, in place."""
    for op in model.get_ops():
        if op.get_type_name() != "Constant" or op.data.size <= SMALL_WEIGHT:
            continue
        readers = list(op.output(0).get_target_inputs())
        if all(reader.get_node().get_type_name() == "Add" for reader in readers):
            table = np.array(op.data, np.float32)
            stored = _dequantize(*quantize_weight(table, tuple(range(table.ndim - 1))))
            for reader in readers:
                reader.replace_source_output(stored)


def _dequantize(rounded: NDArray[np.int8], scale: NDArray[np.float32]) -> Any:
    return ops.multiply(ops.convert(ops.constant(rounded), "f32"), ops.constant(scale)).output(0)


def _scale_axes(op: Any, axes: int) -> tuple[int, ...]:
    """The axes of an operator's weights along which each slice has its own scale; the weights have `axes`."""
    kind = op.get_type_name()
    if kind == "MatMul":
        # A matrix per head has one scale per row: kernels support no scales per column.
        if axes > 2:
            return tuple(range(axes - 1))
        return (axes - 2 if op.get_attributes()["transpose_b"] else axes - 1,)
    return {"Convolution": (0,), "GroupConvolution": (0, 1), "ConvolutionBackpropData": (1,)}[kind]


def _store(op: Any, qmax: int) -> NDArray[np.float32]:
    """Store an operator's weights in INT8.

    Returns:
        (outputs, inputs of a group, ...) rounded minus exact weights.
    """
    weight = np.array(op.input_value(1).get_node().data, np.float32)
    axes = _scale_axes(op, weight.ndim)
    rounded, scale = quantize_weight(weight, axes, qmax)
    op.input(1).replace_source_output(_dequantize(rounded, scale))
    error = rounded * scale - weight
    if op.get_type_name() == "MatMul":
        return error if axes == (0,) else np.moveaxis(error, -1, 0)
    return error.reshape(-1, *error.shape[2:]) if op.get_type_name() == "GroupConvolution" else error


def _correct_bias(op: Any, correction: NDArray[np.float64]) -> None:
    """Subtract the mean error of an operator's outputs from the constant added to them, if there is one."""
    readers = list(op.output(0).get_target_inputs())
    if len(readers) != 1 or readers[0].get_node().get_type_name() != "Add":
        return
    add = readers[0].get_node()
    other = 1 - readers[0].get_index()
    value = add.input_value(other)
    if is_constant(value) and value.get_node().data.size == correction.size:
        bias = np.array(value.get_node().data, np.float32)
        corrected = (bias - correction.reshape(bias.shape)).astype(np.float32)
        add.input(other).replace_source_output(ops.constant(corrected).output(0))


def _fake_quantize(source: Any, values: ActivationStats) -> Any:
    """Round an activation to UINT8 within its range."""
    low, high = values.range_with_zero
    scale = max((high - low) / 255, float(SMALLEST_SCALE))
    zero = np.rint(-low / scale)
    ends = [ops.constant(np.float32(end)) for end in (-zero * scale, (255 - zero) * scale)]
    return ops.fake_quantize(source, *ends, *ends, 256).output(0)


def write_encoder_int8(
    source: Path,
    path: Path,
    facts: Mapping[str, Any],
    observed: Mapping[str, ActivationStats],
    keep_float: Collection[str] = (),
    full_range: bool = False,
) -> list[str]:
    """Quantize weights and activations of the encoder's convolutions and linear layers to INT8.

    Attention (scores, softmax, values), LayerNorm and GELU stay in float.

    Args:
        source: the encoder's FP32 ONNX file.
        path: the .xml to write; the .bin goes beside it.
        facts: go into the file.
        observed: `onnx_int8.encoder_stats` of it.
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
    nodes = qdq.quantizable_nodes(onnx.load(source, load_external_data=False).graph)
    ranges = {node.name: observed[node.input[0]] for node in nodes if node.name not in keep_float}
    quantize(model, ranges, QMAX_INT8 if full_range else QMAX_INT7)
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
    weighted = {node.name for node in qdq.quantizable_nodes(graph)}
    found = {op.get_friendly_name().removesuffix(BARE) for op in model.get_ops()}
    lost = sorted(set(names) & weighted - found)
    if lost:
        raise ExportError(f"OpenVINO fused {', '.join(lost)} of {source.name} away; it cannot stay in float")
