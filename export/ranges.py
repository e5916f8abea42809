"""What values a graph's tensors take on given inputs, measured by ONNX Runtime's calibrator."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
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
    ranges = {name: value.range_value for name, value in measure(source, types, inputs).items()}
    return {name: (float(low.item()), float(high.item())) for name, (low, high) in ranges.items()}


def measure(source: Path, op_types: Collection[str], inputs: Iterable[Inputs]) -> Any:
    """ONNX Runtime's `TensorsData`: the ranges of what operators of these types read and write."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(source, sorted(op_types), augmented_model_path=augmented)
        # In the default order every tensor is kept until all are there: 20 GB for ViT-B at 1024.
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        providers = ["CPUExecutionProvider"]
        calibrator.infer_session = onnxruntime.InferenceSession(augmented, options, providers)
        calibrator.collect_data(Reader(inputs))
        return calibrator.compute_data()
