"""Quantize ONNX graphs in the patterns for which ONNX Runtime has integer kernels.

- A linear layer reads its input through QuantizeLinear and DequantizeLinear, with one scale per tensor, and
  its INT8 weights through DequantizeLinear, with one scale per output channel.
- A convolution is computed in float, with its weights stored in INT8: in integers, ONNX Runtime gains less
  time on it than converting its input and output takes.
- Weights of what is computed in float are read through Cast and Mul. ONNX Runtime folds those when it loads a
  graph, where it would evaluate a DequantizeLinear in every run.
- The mean error of rounding the weights is subtracted from the layer's bias (`arithmetic.bias_correction`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..graphs.onnx_edit import Consumers, add_initializers, consumers, int_attribute, remove_unused
from .arithmetic import (
    QMAX_INT7,
    QMAX_INT8,
    SMALLEST_SCALE,
    ActivationStats,
    bias_correction,
    quantize_weight,
)

QUANTIZABLE = ("Conv", "Gemm", "MatMul")


def quantizable_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The convolutions and linear layers of a graph, in order.

    Matmuls with a batch of constant matrices are left out: those are the relative positions of attention.
    """
    axes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return [
        node
        for node in graph.node
        if node.op_type in QUANTIZABLE
        and (axes.get(node.input[1]) == 2 or (node.op_type == "Conv" and node.input[1] in axes))
    ]


def output_axis(node: onnx.NodeProto) -> int:
    """The axis of output channels in the weights of a convolution or linear layer."""
    return 0 if node.op_type == "Conv" or int_attribute(node, "transB") else 1


def quantize(
    graph: onnx.GraphProto,
    folder: Path,
    names: Collection[str],
    stats: Mapping[str, ActivationStats],
    full_range: bool,
    round_conv_inputs: bool = False,
) -> None:
    """Quantize convolutions and linear layers of a graph, in place.

    Args:
        graph: FP32; its external data is read from `folder`, but not loaded into it.
        folder: the graph's folder.
        names: names of the `quantizable_nodes` to quantize.
        stats: statistics of their inputs, by tensor name.
        full_range: use all 8 bits of weights instead of 7 (`reduce_range`).
        round_conv_inputs: also quantize the inputs of convolutions, as other runtimes do.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = consumers(graph)
    nodes: list[onnx.NodeProto] = []
    dequantized: dict[str, str] = {}

    def replace(node: onnx.NodeProto, index: int, make: Callable[[str], list[onnx.NodeProto]]) -> None:
        name = node.input[index]
        if name not in dequantized:
            made = make(name)
            nodes.extend(made)
            dequantized[name] = made[-1].output[0]
        node.input[index] = dequantized[name]

    for node in list(graph.node):
        if node.name in names:
            values = stats[node.input[0]]
            weight = numpy_helper.to_array(constants[node.input[1]], str(folder))
            axis = output_axis(node)
            in_float = _stays_in_float(node, round_conv_inputs)
            qmax = QMAX_INT8 if full_range or in_float else QMAX_INT7
            rounded, scale = quantize_weight(weight, (axis,), qmax)
            correction = bias_correction(np.moveaxis(rounded * scale - weight, axis, 0), values.mean)
            bias = _find_bias(node, readers, constants)
            if bias is not None:
                before = numpy_helper.to_array(constants[bias[0].input[bias[1]]], str(folder))
                corrected = f"{node.name}_int8_bias"
                add_initializers(graph, [corrected], [(before - correction).astype(np.float32)])
                bias[0].input[bias[1]] = corrected
            if in_float:
                replace(node, 1, partial(_cast_and_scale, graph, rounded, scale))
            else:
                replace(node, 0, partial(_quantize_and_dequantize, graph, values))
                replace(node, 1, partial(_dequantize, graph, rounded, scale, axis))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    remove_unused(graph)
    _separate_biases(graph, folder)


def store_weights(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Store weights in INT8, in place; the nodes that read them compute in float.

    A matrix has one scale per column, weights with more axes one per row.

    Args:
        graph: FP32, with its external data loaded.
        names: of the weights.
    """
    for tensor in [one for one in graph.initializer if one.name in names]:
        weight = numpy_helper.to_array(tensor)
        graph.initializer.remove(tensor)
        axes = (1,) if weight.ndim == 2 else tuple(range(weight.ndim - 1))
        nodes = _cast_and_scale(graph, *quantize_weight(weight, axes), tensor.name)
        nodes[-1].output[0] = tensor.name
        for node in reversed(nodes):
            graph.node.insert(0, node)


def _stays_in_float(node: onnx.NodeProto, round_conv_inputs: bool) -> bool:
    """Whether only the node's weights are quantized.

    So it is for convolutions, and for a Gemm with a bias that cannot be split into MatMul and Sub (see
    `_separate_biases`): ONNX Runtime would compute it in float all the same.
    """
    if node.op_type == "Conv":
        return not round_conv_inputs
    return len(node.input) == 3 and bool(int_attribute(node, "transA") or int_attribute(node, "transB"))


def _find_bias(
    node: onnx.NodeProto, readers: Consumers, constants: Mapping[str, onnx.TensorProto]
) -> tuple[onnx.NodeProto, int] | None:
    """The node that adds a constant bias to the output of `node`, and the index of that input."""
    if len(node.input) == 3:
        return node, 2
    after = readers.get(node.output[0], [])
    if len(after) == 1 and after[0].op_type == "Add":
        for index, name in enumerate(after[0].input):
            if name in constants and len(constants[name].dims) == 1:
                return after[0], index
    return None


def _quantize_and_dequantize(
    graph: onnx.GraphProto, values: ActivationStats, name: str
) -> list[onnx.NodeProto]:
    """Make the nodes that round an activation to UINT8 within its range."""
    low, high = values.range_with_zero
    scale = np.array(max((high - low) / 255, float(SMALLEST_SCALE)), np.float32)
    zero = np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)
    names = [f"{name}_int8_scale", f"{name}_int8_zero"]
    add_initializers(graph, names, (scale, zero))
    rounded, output = f"{name}_int8", f"{name}_int8_restored"
    return [
        helper.make_node("QuantizeLinear", [name, *names], [rounded], name=rounded),
        helper.make_node("DequantizeLinear", [rounded, *names], [output], name=output),
    ]


def _dequantize(
    graph: onnx.GraphProto,
    rounded: NDArray[np.int8],
    scale: NDArray[np.float32],
    axis: int,
    name: str,
) -> list[onnx.NodeProto]:
    """Make the DequantizeLinear that reads INT8 weights."""
    zero = np.zeros(scale.size, np.int8)
    names = [f"{name}_int8", f"{name}_int8_scale", f"{name}_int8_zero"]
    add_initializers(graph, names, (rounded, scale.reshape(-1), zero))
    output = f"{name}_int8_restored"
    return [helper.make_node("DequantizeLinear", names, [output], name=output, axis=axis)]


def _cast_and_scale(
    graph: onnx.GraphProto, rounded: NDArray[np.int8], scale: NDArray[np.float32], name: str
) -> list[onnx.NodeProto]:
    """Make the Cast and Mul that read INT8 weights; `scale` is broadcastable to them."""
    inputs, as_float, output = [f"{name}_int8", f"{name}_int8_scale"], f"{name}_whole", f"{name}_restored"
    add_initializers(graph, inputs, (rounded, scale))
    return [
        helper.make_node("Cast", inputs[:1], [as_float], name=as_float, to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [as_float, inputs[1]], [output], name=output),
    ]


def _separate_biases(graph: onnx.GraphProto, folder: Path) -> None:
    """Rewrite a quantized Gemm(a, b, bias), or an Add after a MatMul, as MatMul(a, b) - (-bias).

    ONNX Runtime multiplies a quantized MatMul as integers. But first its optimizer fuses each MatMul with the
    Add after it into a Gemm, and a Gemm with a float bias is computed in float, its weights dequantized in
    every run. It does not fuse a Sub.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}

    def is_quantized(node: onnx.NodeProto | None, op_type: str) -> bool:
        if node is None or node.op_type != op_type:
            return False
        weight = producers.get(node.input[1])
        return weight is not None and weight.op_type == "DequantizeLinear" and weight.input[0] in constants

    negated = {}
    for index, node in reversed(list(enumerate(graph.node))):
        transposed = int_attribute(node, "transA") or int_attribute(node, "transB")
        if node.op_type == "Add" and is_quantized(producers.get(node.input[0]), "MatMul"):
            if node.input[1] in constants:
                negated[node.input[1]] = f"{node.input[1]}_negated"
                node.op_type, node.input[1] = "Sub", negated[node.input[1]]
        elif is_quantized(node, "Gemm") and len(node.input) == 3 and not transposed:
            product, bias = f"{node.output[0]}_product", f"{node.input[2]}_negated"
            negated[node.input[2]] = bias
            after = helper.make_node("Sub", [product, bias], list(node.output), name=f"{node.name}_bias")
            node.op_type, node.output[0] = "MatMul", product
            del node.input[2:], node.attribute[:]
            graph.node.insert(index + 1, after)
    for name, opposite in negated.items():
        add_initializers(graph, [opposite], [-numpy_helper.to_array(constants[name], str(folder))])
    remove_unused(graph)
