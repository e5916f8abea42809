"""FP16 in ONNX: weights and arithmetic in half precision, inputs and outputs in FP32.

Four kinds of nodes stay in FP32:

- LayerNorm and the reductions of LayerNorm2d, whose squares overflow without becoming NaN;
- the Fourier encoding of points, whose angles need more than eleven bits;
- linear attention, which sums over all tokens and whose divisor has a lower bound that underflows to zero;
- nodes whose values come near FP16's maximum on the calibration images. This is measured, since ONNX Runtime
  computes FP16 graphs in FP32 on CPUs, where an overflow that a GPU has would not show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from sam_edge.system.output import suppress_output

from ..graphs.onnx_edit import detach_large_weights, save
from .ranges import Inputs, tensor_ranges

FP16_MAX = 65504.0
# Headroom for images unlike those measured.
SAFE_MAX = FP16_MAX / 8
FP16_SMALLEST = 2.0**-24
_NORMALISATION = {"Add", "ReduceMean", "Mul", "Sub", "Pow"}
_LINEAR_ATTENTION = {"Clip", "MatMul", "ReduceSum"}


def convert(source: Path, target: Path, inputs: Iterable[Inputs]) -> list[str]:
    """Write the FP32 graph `source` to `target` in FP16.

        >>> convert(encoder, encoder_fp16, [{"images": image} for image in images])
        ["node_Sqrt_12", "node_Sin_3"]

    Args:
        source: an FP32 ONNX file.
        target: where to write.
        inputs: what to run the graph on to find large values.

    Returns:
        Names of the nodes kept in FP32, in graph order.
    """
    proto = onnx.load(source, load_external_data=False)
    ends = [value.name for value in (*proto.graph.input, *proto.graph.output)]
    kept = fp32_nodes(proto.graph)
    kept |= _nodes_near_overflow(source, inputs)
    exact = {name for node in proto.graph.node if node.name in kept for name in node.input}
    large = detach_large_weights(proto.graph, exact)
    onnx.load_external_data_for_model(proto, str(source.parent))
    with suppress_output():
        proto = convert_float_to_float16(
            proto, keep_io_types=ends, op_block_list=["LayerNormalization"], node_block_list=kept
        )
    _attach_in_fp16(proto.graph, large, source.parent)
    _join_fp32_nodes(proto.graph)
    # The converter appends its casts at the end; ONNX requires topological order.
    OnnxModel(proto).topological_sort()
    names = [node.name for node in proto.graph.node]
    kept |= {n.name for n in proto.graph.node if n.op_type == "LayerNormalization"}
    save(proto, target)
    return [name for name in names if name in kept]


def _attach_in_fp16(graph: onnx.GraphProto, large: Mapping[str, onnx.TensorProto], folder: Path) -> None:
    """Undo `detach_large_weights`, with the weights in FP16."""
    for value in [one for one in graph.input if one.name in large]:
        graph.input.remove(value)
        weight = numpy_helper.to_array(large[value.name], str(folder)).clip(-FP16_MAX, FP16_MAX)
        graph.initializer.append(numpy_helper.from_array(weight.astype(np.float16), value.name))


def _join_fp32_nodes(graph: onnx.GraphProto) -> None:
    """Remove the casts between consecutive FP32 nodes.

    The converter puts casts around every FP32 node, so that a value would still overflow in FP16 between two
    of them.
    """
    to_fp16 = {
        node.output[0]: node.input[0] for node in graph.node if _casts_to(node, onnx.TensorProto.FLOAT16)
    }
    exact = {
        node.output[0]: to_fp16[node.input[0]]
        for node in graph.node
        if _casts_to(node, onnx.TensorProto.FLOAT) and node.input[0] in to_fp16
    }
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = exact.get(name, name)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for _ in range(2):  # a cast up, then the cast down that fed it
        for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in read]:
            graph.node.remove(node)
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and onnx.helper.get_node_attr_value(node, "to") == kind


def fp32_nodes(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes of LayerNorm2d's reductions, of the Fourier encoding and of linear attention."""
    producer = {output: node for node in graph.node for output in node.output}
    underflowing = {t.name for t in graph.initializer if _underflows(t)}
    found: set[str] = set()

    def walk_back(node: onnx.NodeProto, through: set[str] | None) -> None:
        if node.name in found:
            return
        found.add(node.name)
        for name in node.input:
            before = producer.get(name)
            if before is not None and (through is None or before.op_type in through):
                walk_back(before, through)

    for node in graph.node:
        if node.op_type in ("Sin", "Cos"):
            walk_back(node, None)
        if node.op_type == "Sqrt":
            walk_back(node, _NORMALISATION)
            found |= {n.name for n in graph.node if n.op_type == "Div" and node.output[0] in n.input}
        if node.op_type == "Clip" and node.input[1] in underflowing:
            for division in (n for n in graph.node if n.op_type == "Div" and node.output[0] in n.input):
                walk_back(division, _LINEAR_ATTENTION)
    return found


def _underflows(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor is a positive scalar that FP16 rounds to zero."""
    if tensor.dims or tensor.data_type != onnx.TensorProto.FLOAT:
        return False
    return bool(0 < onnx.numpy_helper.to_array(tensor) < FP16_SMALLEST)


def _nodes_near_overflow(source: Path, inputs: Iterable[Inputs]) -> set[str]:
    """Names of the nodes that read or write a tensor with values beyond `SAFE_MAX`."""
    ranges = tensor_ranges(source, inputs)
    large = {name for name, (low, high) in ranges.items() if max(-low, high) > SAFE_MAX}
    nodes = onnx.load(source, load_external_data=False).graph.node
    return {node.name for node in nodes if large & {*node.input, *node.output}}
