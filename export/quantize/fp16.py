"""FP16 in ONNX: weights and products in half precision, inputs and outputs in FP32.

Four kinds of nodes stay in FP32: LayerNorm and the reductions of LayerNorm2d, whose squares overflow
without becoming NaN; the Fourier encoding of points, whose angles need more than eleven bits; linear
attention, which sums over all tokens and whose divisor has a lower bound that FP16 takes for zero; and
whatever comes near FP16's largest number on the calibration pictures. The last is measured, since ONNX
Runtime's CPU computes FP16 graphs in FP32 and would not show an overflow that a GPU has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from sam_edge.system.quiet import quiet

from ..graphs.onnx import save, set_large_aside
from .ranges import Inputs, tensor_ranges

LARGEST = 65504.0
# Room for pictures unlike those measured.
SAFE_MAXIMUM = LARGEST / 8
SMALLEST = 2.0**-24
_NORMALISATION = {"Add", "ReduceMean", "Mul", "Sub", "Pow"}
_LINEAR_ATTENTION = {"Clip", "MatMul", "ReduceSum"}


def convert(source: Path, target: Path, inputs: Iterable[Inputs]) -> list[str]:
    """Write the FP32 graph `source` to `target` in FP16; returns the nodes kept in FP32, by name.

    Args:
        source: an FP32 ONNX file.
        target: where to write.
        inputs: what to run the graph on to find large values.
    """
    proto = onnx.load(source, load_external_data=False)
    ends = [value.name for value in (*proto.graph.input, *proto.graph.output)]
    kept = islands(proto.graph)
    kept |= _too_large(source, inputs)
    exact = {name for node in proto.graph.node if node.name in kept for name in node.input}
    large = set_large_aside(proto.graph, exact)
    onnx.load_external_data_for_model(proto, str(source.parent))
    with quiet():
        proto = convert_float_to_float16(
            proto, keep_io_types=ends, op_block_list=["LayerNormalization"], node_block_list=kept
        )
    _put_back_in_half(proto.graph, large, source.parent)
    _join_islands(proto.graph)
    # The casts are appended at the end, which the standard does not allow.
    OnnxModel(proto).topological_sort()
    names = [node.name for node in proto.graph.node]
    kept |= {n.name for n in proto.graph.node if n.op_type == "LayerNormalization"}
    save(proto, target)
    return [name for name in names if name in kept]


def _put_back_in_half(graph: onnx.GraphProto, large: Mapping[str, onnx.TensorProto], folder: Path) -> None:
    """Weights that were inputs meanwhile become initializers again, in FP16."""
    for value in [one for one in graph.input if one.name in large]:
        graph.input.remove(value)
        weight = numpy_helper.to_array(large[value.name], str(folder)).clip(-LARGEST, LARGEST)
        graph.initializer.append(numpy_helper.from_array(weight.astype(np.float16), value.name))


def _join_islands(graph: onnx.GraphProto) -> None:
    """Let FP32 nodes that follow one another pass FP32 on.

    The converter gives every FP32 node casts of its own, so that what overflows would still go through
    FP16 between two of them.
    """
    to_half = {
        node.output[0]: node.input[0] for node in graph.node if _casts_to(node, onnx.TensorProto.FLOAT16)
    }
    exact = {
        node.output[0]: to_half[node.input[0]]
        for node in graph.node
        if _casts_to(node, onnx.TensorProto.FLOAT) and node.input[0] in to_half
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


def islands(graph: onnx.GraphProto) -> set[str]:
    """Nodes of LayerNorm2d's reductions, of the Fourier encoding and of linear attention, by name."""
    producer = {output: node for node in graph.node for output in node.output}
    tiny = {t.name for t in graph.initializer if _is_tiny(t)}
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
        if node.op_type == "Clip" and node.input[1] in tiny:
            for division in (n for n in graph.node if n.op_type == "Div" and node.output[0] in n.input):
                walk_back(division, _LINEAR_ATTENTION)
    return found


def _is_tiny(tensor: onnx.TensorProto) -> bool:
    if tensor.dims or tensor.data_type != onnx.TensorProto.FLOAT:
        return False
    return bool(0 < onnx.numpy_helper.to_array(tensor) < SMALLEST)


def _too_large(source: Path, inputs: Iterable[Inputs]) -> set[str]:
    """Nodes that read or write a tensor beyond `SAFE_MAXIMUM`."""
    ranges = tensor_ranges(source, inputs)
    large = {name for name, (low, high) in ranges.items() if max(-low, high) > SAFE_MAXIMUM}
    nodes = onnx.load(source, load_external_data=False).graph.node
    return {node.name for node in nodes if large & {*node.input, *node.output}}
