"""Core ML: the real runtime on a Mac, and elsewhere its packages run in NumPy, to be checked.

Off a Mac the session's device is "mil-reference", never "cpu": it proves what a package computes, FP16
rounding included, and says nothing of speed.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, DeviceError
from ..mil_reference import Program, load
from ..mil_reference.package import EXTRA, import_coremltools, line, read_spec
from ..quiet import quiet
from . import DEVICES, Arrays, DeviceInfo

MIL_REFERENCE = "mil-reference"

# kind -> (Core ML's name for the compute units, the class of device that must take part)
_UNITS = {
    "cpu": ("CPU_ONLY", "MLCPUComputeDevice"),
    "gpu": ("CPU_AND_GPU", "MLGPUComputeDevice"),
    "npu": ("CPU_AND_NE", "MLNeuralEngineComputeDevice"),
}


class MilReferenceSession:
    """One package, run in NumPy; `run` may be called from several threads."""

    device = MIL_REFERENCE

    def __init__(self, program: Program) -> None:
        self._program: Program | None = program

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Named arrays in, named arrays out."""
        if self._program is None:
            raise BackendError("this model was closed; load it again")
        return self._program.run(inputs)

    def close(self) -> None:
        """Free the weights."""
        self._program = None


class CoreMLSession:
    """One package in Core ML; `run` may be called from several threads, which take turns."""

    def __init__(self, model: Any, device: str) -> None:
        self._model = model
        self._pictures = {
            feature.name
            for feature in model.get_spec().description.input
            if feature.type.WhichOneof("Type") == "imageType"
        }
        self._turn = threading.Lock()
        self.device = device

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Named arrays in, named arrays out; a picture is (1, S, S, 3) uint8 RGB."""
        given = {
            name: _picture(array) if name in self._pictures else np.ascontiguousarray(array, np.float32)
            for name, array in inputs.items()
        }
        with self._turn:
            if self._model is None:
                raise BackendError("this model was closed; load it again")
            try:
                outputs = self._model.predict(given)
            except Exception as error:
                raise BackendError(f"Core ML cannot run the package: {line(error)}") from error
        return {name: np.array(array, np.float32) for name, array in outputs.items()}

    def close(self) -> None:
        """Free the package's memory."""
        self._model = None


def _picture(array: NDArray[Any]) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise BackendError(f"Core ML's picture input needs Pillow; {EXTRA}") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[0] != 1 or array.shape[3] != 3:
        raise BackendError(
            f"the picture is {array.dtype} {array.shape}; expected uint8 (1, height, width, 3), RGB"
        )
    return Image.fromarray(array[0])


class CoreML:
    """The Core ML backend."""

    name = "coreml"
    formats = ("coreml",)

    def devices(self) -> list[DeviceInfo]:
        """The CPU, GPU and Neural Engine of a Mac; elsewhere the reference in NumPy in the CPU's place."""
        missing = "" if importlib.util.find_spec("coremltools") else f"coremltools is not installed; {EXTRA}"
        if sys.platform != "darwin":
            reason = "Core ML runs on a Mac, an iPhone or an iPad"
            return [
                DeviceInfo(self.name, MIL_REFERENCE, "cpu", not missing, missing),
                DeviceInfo(self.name, "GPU", "gpu", False, reason),
                DeviceInfo(self.name, "Neural Engine", "npu", False, reason),
            ]
        if missing:
            return [DeviceInfo(self.name, "CPU", "cpu", False, missing)]
        there = _mac_devices()
        return [
            DeviceInfo(self.name, name, kind, kind in there, "" if kind in there else "this Mac has none")
            for kind, name in (("cpu", "CPU"), ("gpu", "GPU"), ("npu", "Neural Engine"))
        ]

    def open(self, path: Path, device: str, threads: int | None) -> MilReferenceSession | CoreMLSession:
        """Load a package on a device; "auto" is the CPU. Core ML chooses its threads itself.

        Raises:
            DeviceError: the device is not there, or would run nothing of the package.
            BackendError: coremltools is missing, or the package is damaged.
        """
        if device not in DEVICES:
            raise DeviceError(f"unknown device {device!r}; expected one of {', '.join(DEVICES)}")
        kind = "cpu" if device == "auto" else device
        if sys.platform != "darwin":
            if kind != "cpu":
                raise DeviceError(
                    f"no {kind} for Core ML here: Core ML runs on a Mac, an iPhone or an iPad; "
                    "--device cpu runs the package in NumPy, to check it"
                )
            return MilReferenceSession(load(path))
        return _open_on_mac(path, kind)


def _mac_devices() -> set[str]:
    """The kinds of device that Core ML finds."""
    import_coremltools()
    from coremltools.models.compute_device import MLComputeDevice

    found = {type(device).__name__ for device in MLComputeDevice.get_all_compute_devices()}
    return {kind for kind, (_, name) in _UNITS.items() if name in found}


def _open_on_mac(path: Path, kind: str) -> CoreMLSession:
    ct = import_coremltools()
    read_spec(path)
    if kind not in _mac_devices():
        raise DeviceError(f"no {kind} for Core ML on this Mac; there is: {', '.join(sorted(_mac_devices()))}")
    units = getattr(ct.ComputeUnit, _UNITS[kind][0])
    try:
        with quiet():
            model = ct.models.MLModel(str(path), compute_units=units)
            taken = _operations_on(model, units, _UNITS[kind][1])
    except Exception as error:
        raise BackendError(f"Core ML cannot load {path}: {line(error)}") from error
    if not taken:
        raise DeviceError(f"the {kind} takes nothing of {path.name}; ask for --device cpu")
    return CoreMLSession(model, kind)


def _operations_on(model: Any, units: Any, device: str) -> int:
    """How many operations Core ML plans to run on that class of device."""
    from coremltools.models.compute_plan import MLComputePlan

    plan = MLComputePlan.load_from_path(model.get_compiled_model_path(), compute_units=units)
    operations = plan.model_structure.program.functions["main"].block.operations
    usages = map(plan.get_compute_device_usage_for_mlprogram_operation, operations)
    return sum(u is not None and type(u.preferred_compute_device).__name__ == device for u in usages)


BACKEND = CoreML()
