"""Browsers: variants with LayerNorm decomposed for the wasm kernels.

ONNX Runtime's LayerNorm kernel computes one number at a time in WebAssembly, those of the arithmetic that it
is made of four. The operators are chosen such that ONNX Runtime does not fuse them again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from sam_edge import axes

from ..context.job import Job, Written
from ..context.lowerings import WEB
from ..formats.onnx import FORMAT
from ..graphs.onnx_edit import save
from .base import Target


class WebTarget(Target):
    """Decomposed LayerNorm, and an upscaler for the lines that hold the image."""

    info = axes.TARGETS.get("web")
    # FP16 is for WebGPU, whose kernels are fast on the ordinary graphs.
    precisions = ("fp32", "int8")
    others = "WebAssembly has no FP16"

    def write(self, job: Job) -> Written:
        """See the base class."""
        parts = job.context.decoder_parts()
        if "upscaler" in parts:
            parts = parts | {"upscaler": job.context.graph("upscaler", WEB)}
        return FORMAT.write_parts(job, parts, rewrite=decompose_norms)


def decompose_norms(source: Path, target: Path) -> None:
    """Write the ONNX graph `source` to `target` with every LayerNorm over the last axis decomposed."""
    proto = onnx.load(source)
    shapes = {tensor.name: tensor.dims for tensor in proto.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        if node.op_type == "LayerNormalization" and _axis(node) == -1:
            nodes += _decomposed(proto.graph, node, shapes[node.input[1]][0])
        else:
            nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    save(proto, target)


def _axis(node: onnx.NodeProto) -> int:
    return next((one.i for one in node.attribute if one.name == "axis"), -1)


def _decomposed(graph: onnx.GraphProto, node: onnx.NodeProto, width: int) -> list[onnx.NodeProto]:
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


TARGET = WebTarget()
