"""Core ML: the real runtime on a Mac, and elsewhere its packages run in NumPy, to be checked.

Off a Mac the session's device is "mil-reference", never "cpu": it proves what a package computes, FP16
rounding included, and says nothing of speed.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, DeviceError
from ..system.quiet import quiet
from ..types import Arrays
from .base import Backend, DeviceInfo, Session, pick_device
from .compile_cache import Warm, processor
from .mil_reference import load
from .mil_reference.package import EXTRA, import_coremltools, line, read_spec

MIL_REFERENCE = "mil-reference"
NOT_HERE = "Core ML runs on a Mac, an iPhone or an iPad"
_COMPILED = "model.mlmodelc"

# kind -> (Core ML's name for the compute units, the class of device that must take part)
_UNITS = {
    "cpu": ("CPU_ONLY", "MLCPUComputeDevice"),
    "gpu": ("CPU_AND_GPU", "MLGPUComputeDevice"),
    "npu": ("CPU_AND_NE", "MLNeuralEngineComputeDevice"),
}


def _session(model: Any, spec: Any, device: str, placement: dict[str, int]) -> Session:
    """A package in Core ML; threads take turns. A picture is (1, S, S, 3) uint8 RGB."""
    pictures = {
        feature.name for feature in spec.description.input if feature.type.WhichOneof("Type") == "imageType"
    }
    turn = threading.Lock()

    def run(inputs: Arrays) -> Arrays:
        given = {
            name: _picture(array) if name in pictures else _numbers(array) for name, array in inputs.items()
        }
        with turn:
            try:
                outputs = model.predict(given)
            except Exception as error:
                raise BackendError(f"Core ML cannot run the package: {line(error)}") from error
        return {name: np.array(array, np.float32) for name, array in outputs.items()}

    return Session(run, device, placement=placement)


def _numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Token numbers stay whole."""
    return np.ascontiguousarray(array, np.int32 if array.dtype.kind in "iu" else np.float32)


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


class CoreML(Backend):
    """The Core ML backend."""

    name = "coreml"
    formats = ("coreml",)

    def devices(self) -> list[DeviceInfo]:
        """The CPU, GPU and Neural Engine of a Mac; elsewhere the reference in NumPy in the CPU's place."""
        missing = "" if importlib.util.find_spec("coremltools") else f"coremltools is not installed; {EXTRA}"
        if sys.platform != "darwin":
            return [
                DeviceInfo(self.name, MIL_REFERENCE, "cpu", not missing, missing),
                DeviceInfo(self.name, "GPU", "gpu", False, NOT_HERE),
                DeviceInfo(self.name, "Neural Engine", "npu", False, NOT_HERE),
            ]
        if missing:
            return [DeviceInfo(self.name, "CPU", "cpu", False, missing)]
        there = _mac_devices()
        return [
            DeviceInfo(self.name, name, kind, kind in there, "" if kind in there else "this Mac has none")
            for kind, name in (("cpu", "CPU"), ("gpu", "GPU"), ("npu", "Neural Engine"))
        ]

    def open(self, path: Path, device: str, threads: int | None) -> Session:
        """Load a package on a device; "auto" is the CPU. Core ML chooses its threads itself.

        Raises:
            DeviceError: the device is not there, or would run nothing of the package.
            BackendError: coremltools is missing, or the package is damaged.
        """
        return self._open(path, device, None)

    def open_warm(self, path: Path, device: str, threads: int | None, warm: Warm) -> Session:
        """As `open`, with what Core ML compiled; the NumPy reference compiles nothing."""
        return self._open(path, device, warm)

    def _open(self, path: Path, device: str, warm: Warm | None) -> Session:
        import_coremltools()
        adds = "" if sys.platform == "darwin" else f"{NOT_HERE}; --device cpu runs the package in NumPy"
        chosen = pick_device(self.devices(), device, "Core ML", adds)
        if chosen.name == MIL_REFERENCE:
            return Session(load(path).run, MIL_REFERENCE)
        return _open_on_mac(path, chosen.kind, warm)


def _mac_devices() -> set[str]:
    """The kinds of device that Core ML finds."""
    import_coremltools()
    from coremltools.models.compute_device import MLComputeDevice

    found = {type(device).__name__ for device in MLComputeDevice.get_all_compute_devices()}
    return {kind for kind, (_, name) in _UNITS.items() if name in found}


def _open_on_mac(path: Path, kind: str, warm: Warm | None) -> Session:
    ct = import_coremltools()
    spec = read_spec(path)
    units = getattr(ct.ComputeUnit, _UNITS[kind][0])
    try:
        with quiet():
            model, compiled = _compiled(ct, path, units, warm)
            taken, all_of_them = _operations_on(compiled, units, _UNITS[kind][1])
    except Exception as error:
        raise BackendError(f"Core ML cannot load {path}: {line(error)}") from error
    if not taken:
        raise DeviceError(f"the {kind} takes nothing of {path.name}; ask for --device cpu")
    return _session(model, spec, kind, {kind: taken, "elsewhere": all_of_them - taken})


def _compiled(ct: Any, path: Path, units: Any, warm: Warm | None) -> tuple[Any, str]:
    """The model and the place of what Core ML compiled it to."""
    if warm is None:
        model = ct.models.MLModel(str(path), compute_units=units)
        return model, model.get_compiled_model_path()
    facts = ("coreml", ct.__version__, platform.mac_ver()[0], str(units), processor())
    folder = warm.find(*facts)
    if folder is not None:
        try:
            compiled = str(folder / _COMPILED)
            return ct.models.CompiledMLModel(compiled, compute_units=units), compiled
        except Exception:
            # As whole as it was written, and still of no use.
            warm.discard(*facts)
    model = ct.models.MLModel(str(path), compute_units=units)
    compiled = model.get_compiled_model_path()
    warm.keep(lambda to: _copy(compiled, to / _COMPILED), *facts)
    return model, compiled


def _copy(source: str, target: Path) -> None:
    shutil.copytree(source, target)


def _operations_on(compiled: str, units: Any, device: str) -> tuple[int, int]:
    """How many operations Core ML plans to run on that class of device, and how many on any."""
    from coremltools.models.compute_plan import MLComputePlan

    plan = MLComputePlan.load_from_path(compiled, compute_units=units)
    operations = plan.model_structure.program.functions["main"].block.operations
    usages = [u for u in map(plan.get_compute_device_usage_for_mlprogram_operation, operations) if u]
    return sum(type(u.preferred_compute_device).__name__ == device for u in usages), len(usages)


BACKEND = CoreML()
