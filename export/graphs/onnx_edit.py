"""Edit and write ONNX graphs, including those whose weights exceed protobuf's 2 GiB limit."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

# A protobuf message is limited to 2 GiB; larger models keep their weights in a file beside the graph.
EXTERNAL_DATA_BYTES = 1_800_000_000
LARGE_WEIGHT_BYTES = 1 << 20

Consumers = dict[str, list[onnx.NodeProto]]


def save(proto: onnx.ModelProto, path: Path) -> None:
    """Check and write a graph, with its weights in a file beside it where they are too large for protobuf."""
    if sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > EXTERNAL_DATA_BYTES:
        onnx.save(proto, path, save_as_external_data=True, location=f"{path.name}.data")
        onnx.checker.check_model(str(path))
    else:
        onnx.save(proto, path)
        onnx.checker.check_model(str(path))


def detach_large_weights(
    graph: onnx.GraphProto, exclude: Collection[str] = ()
) -> dict[str, onnx.TensorProto]:
    """Turn large FP32 weights into graph inputs, in place, and return them by name.

    For tools that serialise whole graphs, which protobuf limits to 2 GiB.

    Args:
        graph: to change.
        exclude: names of weights to leave.
    """
    large = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and 4 * math.prod(tensor.dims) >= LARGE_WEIGHT_BYTES
        and tensor.name not in exclude
    }
    for name, tensor in large.items():
        graph.initializer.remove(tensor)
        graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    return large


def consumers(graph: onnx.GraphProto) -> Consumers:
    """The nodes that read each tensor, by the tensor's name."""
    found: Consumers = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def int_attribute(node: onnx.NodeProto, name: str) -> int:
    """A node's integer attribute, 0 where it has none of this name."""
    return next((int(one.i) for one in node.attribute if one.name == name), 0)


def add_initializers(graph: onnx.GraphProto, names: Sequence[str], values: Sequence[NDArray[Any]]) -> None:
    """Append constants to a graph."""
    for name, value in zip(names, values, strict=True):
        graph.initializer.append(numpy_helper.from_array(value, name))


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and initializers that no output depends on."""
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
