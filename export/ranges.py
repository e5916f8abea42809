"""What values a graph's tensors take on given inputs, measured by ONNX Runtime's calibrator."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
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
    with tempfile.TemporaryDirectory() as folder, quiet():
        calibrator = create_calibrator(
            source, sorted(types), augmented_model_path=str(Path(folder) / "augmented.onnx")
        )
        calibrator.collect_data(Reader(inputs))
        data: Any = calibrator.compute_data()
        ranges = {name: value.range_value for name, value in data.items()}
        return {name: (float(low.item()), float(high.item())) for name, (low, high) in ranges.items()}
