"""Quantisation in ONNX graphs: products and their weights in the form that ONNX Runtime computes in integers.

A linear layer reads its input through a QuantizeLinear and a DequantizeLinear, one scale a tensor, and its
weights, stored in INT8, one scale an output channel, through a DequantizeLinear. Weights of convolutions are
stored so, too, but convolutions are computed in float: in integers, ONNX Runtime wins less time on them than
converting what they read and make takes. Weights of what is computed in float are read through a Cast and a
Mul: those ONNX Runtime makes when it loads a graph, where it keeps a DequantizeLinear for each run. What
rounding the weights moves the product by on average is taken off its bias (Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", ICCV 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

TINY = np.finfo(np.float32).tiny
QUANTISED = ("Conv", "Gemm", "MatMul")
# Without VNNI, x86 adds pairs of products of bytes in 16 bits, which hold those of weights of 7 bits.
STEPS, STEPS_OF_7_BITS = 127, 63

Readers = dict[str, list[onnx.NodeProto]]


@dataclass(frozen=True)
class Observed:
    """A tensor's values over some inputs.

    Attributes:
        low, high: the least and the greatest value.
        mean: (channels,) float64, the mean value of each channel.
    """

    low: float
    high: float
    mean: NDArray[np.float64]


def quantisable(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that INT8 applies to, in order: convolutions and linear layers.

    A product with a batch of constant matrices is none: so are relative positions added to attention.
    """
    axes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return [
        node
        for node in graph.node
        if node.op_type in QUANTISED
        and (axes.get(node.input[1]) == 2 or (node.op_type == "Conv" and node.input[1] in axes))
    ]


def output_axis(node: onnx.NodeProto) -> int:
    """The axis of output channels of a product's weights."""
    return 0 if node.op_type == "Conv" or attribute(node, "transB") else 1


def quantize(
    graph: onnx.GraphProto,
    folder: Path,
    names: Collection[str],
    observed: Mapping[str, Observed],
    full_range: bool,
    convolutions: bool = False,
) -> None:
    """Quantise products of a graph, in place.

    Args:
        graph: FP32; its external data need not be loaded, and is not.
        folder: where that is.
        names: which of `quantisable`.
        observed: the values of what each of them reads.
        full_range: all 8 bits of the weights that are multiplied in integers, instead of 7.
        convolutions: whether convolutions read what was rounded, too, as other runtimes have them.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = _readers(graph)
    nodes: list[onnx.NodeProto] = []
    restored: dict[str, str] = {}

    def replace(node: onnx.NodeProto, index: int, make: Callable[[str], list[onnx.NodeProto]]) -> None:
        name = node.input[index]
        if name not in restored:
            made = make(name)
            nodes.extend(made)
            restored[name] = made[-1].output[0]
        node.input[index] = restored[name]

    for node in list(graph.node):
        if node.name in names:
            values = observed[node.input[0]]
            weight = numpy_helper.to_array(constants[node.input[1]], str(folder))
            axis = output_axis(node)
            in_float = _in_float(node, convolutions)
            steps = STEPS if full_range or in_float else STEPS_OF_7_BITS
            stored, scale = to_int8(weight, (axis,), steps)
            moved = moved_by(np.moveaxis(stored * scale - weight, axis, 0), values.mean)
            bias = _bias(node, readers, constants)
            if bias is not None:
                before = numpy_helper.to_array(constants[bias[0].input[bias[1]]], str(folder))
                corrected = f"{node.name}_int8_bias"
                _add_constants(graph, [corrected], [(before - moved).astype(np.float32)])
                bias[0].input[bias[1]] = corrected
            if in_float:
                replace(node, 1, partial(_restored, graph, stored, scale))
            else:
                replace(node, 0, partial(_quantised, graph, values))
                replace(node, 1, partial(_stored, graph, stored, scale, axis))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)
    _part_biases(graph, folder)


def _in_float(node: onnx.NodeProto, convolutions: bool) -> bool:
    """Whether a product is computed in float, with weights of INT8: a convolution, or a Gemm with a bias
    that is no MatMul and a sum, which ONNX Runtime would compute in float all the same."""
    if node.op_type == "Conv":
        return not convolutions
    return len(node.input) == 3 and bool(attribute(node, "transA") or attribute(node, "transB"))


def to_int8(
    weight: NDArray[np.float32], axes: tuple[int, ...], steps: int = STEPS
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights as whole numbers from -steps to steps, and a scale for each slice of `axes`, with all axes."""
    others = tuple(i for i in range(weight.ndim) if i not in axes)
    scale = np.maximum(np.abs(weight).max(others, keepdims=True) / steps, TINY).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def moved_by(error: NDArray[np.float32], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """(outputs,) what an error of its weights moves a product by.

    Args:
        error: (outputs, inputs of a group, ...) of a convolution or, with one group, a linear layer.
        mean: (inputs,) of what it reads.
    """
    groups = mean.size // error.shape[1]
    means = np.repeat(mean.reshape(groups, -1), len(error) // groups, axis=0)
    return np.asarray((error.reshape(*error.shape[:2], -1).sum(2) * means).sum(1))


def _bias(
    node: onnx.NodeProto, readers: Readers, constants: Mapping[str, onnx.TensorProto]
) -> tuple[onnx.NodeProto, int] | None:
    """The node that adds a constant to a product, and which of its inputs that is."""
    if len(node.input) == 3:
        return node, 2
    after = readers.get(node.output[0], [])
    if len(after) == 1 and after[0].op_type == "Add":
        for index, name in enumerate(after[0].input):
            if name in constants and len(constants[name].dims) == 1:
                return after[0], index
    return None


def _add_constants(graph: onnx.GraphProto, names: Sequence[str], values: Sequence[NDArray[Any]]) -> None:
    for name, value in zip(names, values, strict=True):
        graph.initializer.append(numpy_helper.from_array(value, name))


def _quantised(graph: onnx.GraphProto, values: Observed, name: str) -> list[onnx.NodeProto]:
    """Nodes that round a tensor to a byte within the range of its values, which includes 0."""
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    scale = np.array(max((high - low) / 255, float(TINY)), np.float32)
    zero = np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)
    names = [f"{name}_int8_scale", f"{name}_int8_zero"]
    _add_constants(graph, names, (scale, zero))
    whole, restored = f"{name}_int8", f"{name}_int8_restored"
    return [
        helper.make_node("QuantizeLinear", [name, *names], [whole], name=whole),
        helper.make_node("DequantizeLinear", [whole, *names], [restored], name=restored),
    ]


def _stored(
    graph: onnx.GraphProto,
    stored: NDArray[np.int8],
    scale: NDArray[np.float32],
    axis: int,
    name: str,
) -> list[onnx.NodeProto]:
    """A node that reads weights of whole numbers."""
    zero = np.zeros(scale.size, np.int8)
    names = [f"{name}_int8", f"{name}_int8_scale", f"{name}_int8_zero"]
    _add_constants(graph, names, (stored, scale.reshape(-1), zero))
    restored = f"{name}_int8_restored"
    return [helper.make_node("DequantizeLinear", names, [restored], name=restored, axis=axis)]


def store_weights(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Store the weights `names` in INT8; what reads them computes in float.

    A matrix has a scale for each column, weights of more axes one for each row.
    """
    for tensor in [one for one in graph.initializer if one.name in names]:
        weight = numpy_helper.to_array(tensor)
        graph.initializer.remove(tensor)
        axes = (1,) if weight.ndim == 2 else tuple(range(weight.ndim - 1))
        nodes = _restored(graph, *to_int8(weight, axes), tensor.name)
        nodes[-1].output[0] = tensor.name
        for node in reversed(nodes):
            graph.node.insert(0, node)


def _restored(
    graph: onnx.GraphProto, stored: NDArray[np.int8], scale: NDArray[np.float32], name: str
) -> list[onnx.NodeProto]:
    """Nodes that make weights of whole numbers and scales, which have all axes."""
    inputs, whole, restored = [f"{name}_int8", f"{name}_int8_scale"], f"{name}_whole", f"{name}_restored"
    _add_constants(graph, inputs, (stored, scale))
    return [
        helper.make_node("Cast", inputs[:1], [whole], name=whole, to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [whole, inputs[1]], [restored], name=restored),
    ]


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the nodes and initializers that nothing reads."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(node.input)
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(reversed(kept))
    for tensor in [one for one in graph.initializer if one.name not in needed]:
        graph.initializer.remove(tensor)


def _readers(graph: onnx.GraphProto) -> Readers:
    readers: Readers = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def attribute(node: onnx.NodeProto, name: str) -> int:
    """A node's attribute, 0 where it has none."""
    return next((int(one.i) for one in node.attribute if one.name == name), 0)


def _part_biases(graph: onnx.GraphProto, folder: Path) -> None:
    """Quantised Gemm(a, b, bias) becomes MatMul(a, b) - (-bias), and so does a sum behind a MatMul.

    ONNX Runtime multiplies a quantised MatMul in integers; but before it looks for one, it makes a Gemm of
    each MatMul with a sum behind it, and a Gemm whose bias is in float it computes in float, its weights
    converted anew in every run. It makes no Gemm of a difference.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}

    def is_quantised(node: onnx.NodeProto | None, kind: str) -> bool:
        if node is None or node.op_type != kind:
            return False
        weight = made.get(node.input[1])
        return weight is not None and weight.op_type == "DequantizeLinear" and weight.input[0] in constants

    negated = {}
    for index, node in reversed(list(enumerate(graph.node))):
        transposed = attribute(node, "transA") or attribute(node, "transB")
        if node.op_type == "Add" and is_quantised(made.get(node.input[0]), "MatMul"):
            if node.input[1] in constants:
                negated[node.input[1]] = f"{node.input[1]}_negated"
                node.op_type, node.input[1] = "Sub", negated[node.input[1]]
        elif is_quantised(node, "Gemm") and len(node.input) == 3 and not transposed:
            product, bias = f"{node.output[0]}_product", f"{node.input[2]}_negated"
            negated[node.input[2]] = bias
            after = helper.make_node("Sub", [product, bias], list(node.output), name=f"{node.name}_bias")
            node.op_type, node.output[0] = "MatMul", product
            del node.input[2:], node.attribute[:]
            graph.node.insert(index + 1, after)
    for name, opposite in negated.items():
        _add_constants(graph, [opposite], [-numpy_helper.to_array(constants[name], str(folder))])
    drop_unread(graph)
