"""The form that WebAssembly likes best: LayerNorm in pieces.

ONNX Runtime's kernel of LayerNorm works on one number at a time in WebAssembly, those of the arithmetic it is
made of on four. They are chosen such that its optimiser does not put them together again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..graphs.onnx_edit import save


def write_for_web(source: Path, target: Path) -> None:
    """Write the ONNX graph `source` to `target` with every LayerNorm over the last axis in pieces."""
    proto = onnx.load(source)
    shapes = {tensor.name: tensor.dims for tensor in proto.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        if node.op_type == "LayerNormalization" and _axis(node) == -1:
            nodes += _pieces(proto.graph, node, shapes[node.input[1]][0])
        else:
            nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    save(proto, target)


def _axis(node: onnx.NodeProto) -> int:
    return next((one.i for one in node.attribute if one.name == "axis"), -1)


def _pieces(graph: onnx.GraphProto, node: onnx.NodeProto, width: int) -> list[onnx.NodeProto]:
    values, weight, *bias = node.input
    output, prefix = node.output[0], node.output[0] + "/"
    epsilon = next((one.f for one in node.attribute if one.name == "epsilon"), 1e-5)
    constants: dict[str, NDArray[Any]] = {
        "axis": np.array([-1], np.int64),
        "share": np.array(1 / width, np.float32),
        "epsilon": np.array(epsilon, np.float32),
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value, prefix + name))
    steps = [
        ("ReduceMean", [values, "axis"], "mean"),
        ("Sub", [values, "mean"], "centred"),
        ("ReduceSumSquare", ["centred", "axis"], "squares"),
        ("Mul", ["squares", "share"], "variance"),
        ("Add", ["variance", "epsilon"], "safe"),
        ("Sqrt", ["safe"], "deviation"),
        ("Reciprocal", ["deviation"], "factor"),
        ("Mul", ["centred", "factor"], "normed"),
        ("Mul", ["normed", weight], "scaled" if bias else output),
        *([("Add", ["scaled", bias[0]], output)] if bias else []),
    ]
    own = constants.keys() | {name for _, _, name in steps} - {output}

    def named(one: str) -> str:
        return prefix + one if one in own else one

    return [
        helper.make_node(kind, [named(one) for one in inputs], [named(made)], prefix + made)
        for kind, inputs, made in steps
    ]
