"""Measure the values of a graph's tensors on calibration inputs, with ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import CalibrationDataReader

from .arithmetic import ActivationStats

Inputs = Mapping[str, NDArray[np.float32]]
Runs = list[dict[str, NDArray[Any]]]
# Names of constants: the axes to reduce of (N, C, H, W) tensors, and of (rows, channels) matrices.
_NCHW_AXES, _ROW_AXES = "observed axes of four", "observed axes of rows"


class CalibrationReader(CalibrationDataReader):  # type: ignore[misc]
    """Calibration inputs as ONNX Runtime's calibrators read them."""

    def __init__(self, inputs: Iterable[Inputs]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> Inputs | None:
        """Return the next inputs, or None after the last."""
        return next(self._inputs, None)


def tensor_ranges(source: Path, inputs: Iterable[Inputs]) -> dict[str, tuple[float, float]]:
    """Measure the smallest and largest value of every float tensor of a graph.

    Args:
        source: an ONNX file; a temporary one is written beside it.
        inputs: what to run the graph on; at least one.
    """
    model = onnx.load(source, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    names = [one.name for one in values if one.type.tensor_type.elem_type == TensorProto.FLOAT]
    first = len(model.graph.node)
    del model.graph.output[:]
    for name in names:
        _add_reduction(model.graph, name, "ReduceMin", f"{name} low")
        _add_reduction(model.graph, name, "ReduceMax", f"{name} high")
    runs = _run(model, first, source.parent, inputs)
    return {name: _range(runs, name) for name in names}


def activation_stats(
    source: Path, channels: Mapping[str, tuple[int, bool]], inputs: Iterable[Inputs]
) -> dict[str, ActivationStats]:
    """Measure the range and the mean per channel of some tensors of a graph.

    Args:
        source: an ONNX file; a temporary one is written beside it.
        channels: for each tensor by name, its number of channels, and whether they are its last axis; if not,
            they are the second of four.
        inputs: what to run the graph on; at least one.
    """
    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    first = len(graph.node)
    del graph.output[:]
    for axes, value in ((_NCHW_AXES, [0, 2, 3]), (_ROW_AXES, [0])):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), axes))
    for name, (count, last) in channels.items():
        _add_reduction(graph, name, "ReduceMin", f"{name} low")
        _add_reduction(graph, name, "ReduceMax", f"{name} high")
        reduced = name
        if last:
            reduced, shape = f"{name} in rows", f"{name} shape of rows"
            graph.initializer.append(numpy_helper.from_array(np.array([-1, count], np.int64), shape))
            graph.node.append(helper.make_node("Reshape", [name, shape], [reduced]))
        _add_reduction(graph, reduced, "ReduceMean", f"{name} mean", _ROW_AXES if last else _NCHW_AXES)
    runs = _run(model, first, source.parent, inputs)
    return {name: ActivationStats(*_range(runs, name), _mean(runs, name)) for name in channels}


def _add_reduction(graph: onnx.GraphProto, name: str, op_type: str, output: str, axes: str = "") -> None:
    """Append an output: the tensor `name` reduced along the constant `axes`, or along all axes."""
    graph.node.append(helper.make_node(op_type, [name, axes] if axes else [name], [output], keepdims=0))
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))


def _run(model: onnx.ModelProto, first: int, folder: Path, inputs: Iterable[Inputs]) -> Runs:
    """Run a graph on each of the inputs and return all outputs.

    Args:
        model: its external data is in `folder`.
        first: index of the first node that measures, and does not compute anything for the others.
        folder: where to write a temporary file.
        inputs: what to run it on.
    """
    _move_to_sources(model.graph, first)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".onnx") as scratch:
        onnx.save(model, scratch.name)
        session = _session(Path(scratch.name))
    names = [value.name for value in model.graph.output]
    return [dict(zip(names, session.run(names, dict(one)), strict=True)) for one in inputs]


def _move_to_sources(graph: onnx.GraphProto, first: int) -> None:
    """Move the nodes from index `first` on right after those whose outputs they read.

    A tensor can then be freed as soon as it is measured.
    """
    position: dict[str, float] = {}
    for index, node in enumerate(graph.node):
        sources = (position.get(name, -1) for name in node.input)
        position.update(dict.fromkeys(node.output, index if index < first else max(sources) + 0.5))
    # Sorting is stable: nodes of one position stay in order.
    nodes = sorted(graph.node, key=lambda node: position[node.output[0]])
    del graph.node[:]
    graph.node.extend(nodes)


def _session(path: Path) -> onnxruntime.InferenceSession:
    # The graph's own order: in the default order every tensor is kept until all are computed.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _range(runs: Runs, name: str) -> tuple[float, float]:
    return min(float(run[f"{name} low"]) for run in runs), max(float(run[f"{name} high"]) for run in runs)


def _mean(runs: Runs, name: str) -> NDArray[np.float64]:
    return np.asarray(np.mean([run[f"{name} mean"] for run in runs], axis=0, dtype=np.float64))
