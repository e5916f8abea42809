"""What values a graph's tensors take on given inputs, measured by ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator

from sam_edge.quiet import quiet

Inputs = Mapping[str, NDArray[np.float32]]


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Named inputs, one after another, as ONNX Runtime's calibrators want them."""

    def __init__(self, inputs: Iterable[Inputs]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> Inputs | None:
        """The next inputs, or None after the last."""
        return next(self._inputs, None)


def tensor_ranges(source: Path, inputs: Iterable[Inputs]) -> dict[str, tuple[float, float]]:
    """The least and greatest value of every float tensor of the graph `source` over `inputs`."""
    types = {node.op_type for node in onnx.load(source, load_external_data=False).graph.node}
    ranges = {name: value.range_value for name, value in _calibrate(source, types, inputs).items()}
    return {name: (float(low.item()), float(high.item())) for name, (low, high) in ranges.items()}


def _calibrate(source: Path, op_types: Collection[str], inputs: Iterable[Inputs]) -> Any:
    """ONNX Runtime's `TensorsData`: the ranges of what operators of these types read and write."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(source, sorted(op_types), augmented_model_path=augmented)
        calibrator.infer_session = _session(Path(augmented))
        calibrator.collect_data(Reader(inputs))
        return calibrator.compute_data()


def _session(path: Path) -> onnxruntime.InferenceSession:
    # In the default order every tensor is kept until all are there: 20 GB for ViT-B at 1024.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Observed:
    """A tensor's values over some inputs.

    Attributes:
        low, high: the least and the greatest value, each the mean over the inputs.
        mean: (channels,) float64, the mean value of each channel.
    """

    low: float
    high: float
    mean: NDArray[np.float64]


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
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
    del graph.output[:]
    axes = {"all": [0, 2, 3], "rows": [0]}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(value, np.int64), f"observed axes {name}")
        for name, value in axes.items()
    )
    for name, (count, last) in channels.items():
        low, high, mean = (f"{name} {what}" for what in ("low", "high", "mean"))
        seen = name
        if last:
            seen, shape = f"{name} in rows", f"{name} shape of rows"
            graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, count], np.int64), shape))
            graph.node.append(helper.make_node("Reshape", [name, shape], [seen]))
        graph.node.extend(
            [
                helper.make_node("ReduceMin", [name], [low], keepdims=0),
                helper.make_node("ReduceMax", [name], [high], keepdims=0),
                helper.make_node(
                    "ReduceMean", [seen, f"observed axes {'rows' if last else 'all'}"], [mean], keepdims=0
                ),
            ]
        )
        for output, dims in ((low, []), (high, []), (mean, [count])):
            graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, dims))
    with tempfile.NamedTemporaryFile(dir=source.parent, suffix=".onnx") as scratch:
        onnx.save(model, scratch.name)
        session = _session(Path(scratch.name))
    names = [value.name for value in graph.output]
    runs = [session.run(names, dict(one)) for one in inputs]
    means = [np.mean(values, axis=0, dtype=np.float64) for values in zip(*runs, strict=True)]
    found = dict(zip(names, means, strict=True))
    return {
        name: Observed(float(found[f"{name} low"]), float(found[f"{name} high"]), found[f"{name} mean"])
        for name in channels
    }
