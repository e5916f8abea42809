"""What values a graph's tensors take on given inputs, measured by ONNX Runtime."""

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

from .qdq import Observed

Inputs = Mapping[str, NDArray[np.float32]]
Runs = list[dict[str, NDArray[Any]]]
# Names of constants: axes of what has channels second of four, or last of two.
_OF_FOUR, _OF_ROWS = "observed axes of four", "observed axes of rows"


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Named inputs, one after another, as ONNX Runtime's calibrators want them."""

    def __init__(self, inputs: Iterable[Inputs]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> Inputs | None:
        """The next inputs, or None after the last."""
        return next(self._inputs, None)


def tensor_ranges(source: Path, inputs: Iterable[Inputs]) -> dict[str, tuple[float, float]]:
    """The least and greatest value of every float tensor of the graph `source` over `inputs`.

    Args:
        source: an ONNX file; another is written beside it for a while.
        inputs: what to run the graph on; at least one.
    """
    model = onnx.load(source, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    names = [one.name for one in values if one.type.tensor_type.elem_type == TensorProto.FLOAT]
    first = len(model.graph.node)
    del model.graph.output[:]
    for name in names:
        _reduce(model.graph, name, "ReduceMin", f"{name} low")
        _reduce(model.graph, name, "ReduceMax", f"{name} high")
    runs = _run(model, first, source.parent, inputs)
    return {name: _range(runs, name) for name in names}


def _reduce(graph: onnx.GraphProto, name: str, how: str, output: str, axes: str = "") -> None:
    """Let the graph have one more `output`: the tensor `name` reduced, along the constant `axes` if given."""
    graph.node.append(helper.make_node(how, [name, axes] if axes else [name], [output], keepdims=0))
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))


def _run(model: onnx.ModelProto, first: int, folder: Path, inputs: Iterable[Inputs]) -> Runs:
    """All outputs of `model`, whose external data is in `folder`, for each of the inputs; its nodes from the
    index `first` on only look at what others make."""
    _place(model.graph, first)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".onnx") as scratch:
        onnx.save(model, scratch.name)
        session = _session(Path(scratch.name))
    names = [value.name for value in model.graph.output]
    return [dict(zip(names, session.run(names, dict(one)), strict=True)) for one in inputs]


def _place(graph: onnx.GraphProto, first: int) -> None:
    """Put the nodes from the index `first` on behind those that make what they read; it is then let go of."""
    place: dict[str, float] = {}
    for index, node in enumerate(graph.node):
        read = (place.get(name, -1) for name in node.input)
        place.update(dict.fromkeys(node.output, index if index < first else max(read) + 0.5))
    # Those of one place stay in order.
    nodes = sorted(graph.node, key=lambda node: place[node.output[0]])
    del graph.node[:]
    graph.node.extend(nodes)


def _session(path: Path) -> onnxruntime.InferenceSession:
    # The graph's own order: in the default one every tensor is kept until all are there.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def observe(
    source: Path, channels: Mapping[str, tuple[int, bool]], inputs: Iterable[Inputs]
) -> dict[str, Observed]:
    """The values of some tensors of the graph `source` over `inputs`.

    Args:
        source: an ONNX file; another is written beside it for a while.
        channels: of each tensor, the number of its channels, and whether they are its last axis; else they
            are the second of four.
        inputs: what to run the graph on; at least one.
    """
    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    first = len(graph.node)
    del graph.output[:]
    for axes, value in ((_OF_FOUR, [0, 2, 3]), (_OF_ROWS, [0])):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), axes))
    for name, (count, last) in channels.items():
        _reduce(graph, name, "ReduceMin", f"{name} low")
        _reduce(graph, name, "ReduceMax", f"{name} high")
        seen = name
        if last:
            seen, shape = f"{name} in rows", f"{name} shape of rows"
            graph.initializer.append(numpy_helper.from_array(np.array([-1, count], np.int64), shape))
            graph.node.append(helper.make_node("Reshape", [name, shape], [seen]))
        _reduce(graph, seen, "ReduceMean", f"{name} mean", _OF_ROWS if last else _OF_FOUR)
    runs = _run(model, first, source.parent, inputs)
    return {name: Observed(*_range(runs, name), _mean(runs, name)) for name in channels}


def _range(runs: Runs, name: str) -> tuple[float, float]:
    return min(float(run[f"{name} low"]) for run in runs), max(float(run[f"{name} high"]) for run in runs)


def _mean(runs: Runs, name: str) -> NDArray[np.float64]:
    return np.asarray(np.mean([run[f"{name} mean"] for run in runs], axis=0, dtype=np.float64))
