"""Core ML: its runtime on a Mac; elsewhere its packages run in NumPy, to verify them.

Off a Mac the session's device is "mil-reference", never "cpu": it shows what a package computes, FP16
rounding included, and nothing about speed.
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
from ..system.install import install_command
from ..system.output import suppress_output
from ..types import Arrays
from .base import Backend, DeviceInfo, Session, select_device
from .compile_cache import CompileCache, processor_id
from .mil_reference import load
from .mil_reference.package import import_coremltools, one_line, read_spec

MIL_REFERENCE = "mil-reference"
_APPLE_ONLY = "Core ML runs on a Mac, an iPhone or an iPad"
_COMPILED = "model.mlmodelc"

# kind -> (Core ML's compute units, the class of device that must run part of the graph)
_UNITS = {
    "cpu": ("CPU_ONLY", "MLCPUComputeDevice"),
    "gpu": ("CPU_AND_GPU", "MLGPUComputeDevice"),
    "npu": ("CPU_AND_NE", "MLNeuralEngineComputeDevice"),
}


def _session(model: Any, spec: Any, device: str, placement: dict[str, int]) -> Session:
    """Wrap a model as a `Session` that threads use in turn. Image inputs are (1, S, S, 3) uint8 RGB."""
    image_names = {
        feature.name for feature in spec.description.input if feature.type.WhichOneof("Type") == "imageType"
    }
    lock = threading.Lock()

    def run(inputs: Arrays) -> Arrays:
        given = {
            name: _to_image(array) if name in image_names else _to_numbers(array)
            for name, array in inputs.items()
        }
        with lock:
            try:
                outputs = model.predict(given)
            except Exception as error:
                raise BackendError(f"Core ML cannot run the package: {one_line(error)}") from error
        return {name: np.array(array, np.float32) for name, array in outputs.items()}

    return Session(run, device, placement=placement)


def _to_numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Convert to int32 (token ids) or float32."""
    return np.ascontiguousarray(array, np.int32 if array.dtype.kind in "iu" else np.float32)


def _to_image(array: NDArray[Any]) -> Any:
    """Convert (1, S, S, 3) uint8 RGB to a Pillow image."""
    try:
        from PIL import Image
    except ImportError as error:
        raise BackendError(f"Core ML's image input requires Pillow; {install_command('coreml')}") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[0] != 1 or array.shape[3] != 3:
        raise BackendError(
            f"the image is {array.dtype} {array.shape}; expected uint8 (1, height, width, 3), RGB"
        )
    return Image.fromarray(array[0])


class CoreML(Backend):
    """The Core ML backend."""

    name = "coreml"
    formats = ("coreml",)

    def devices(self) -> list[DeviceInfo]:
        """The CPU, GPU and Neural Engine of a Mac; elsewhere the NumPy reference instead of the CPU."""
        missing = ""
        if not importlib.util.find_spec("coremltools"):
            missing = f"coremltools is not installed; {install_command('coreml')}"
        if sys.platform != "darwin":
            return [
                DeviceInfo(self.name, MIL_REFERENCE, "cpu", not missing, missing),
                DeviceInfo(self.name, "GPU", "gpu", False, _APPLE_ONLY),
                DeviceInfo(self.name, "Neural Engine", "npu", False, _APPLE_ONLY),
            ]
        if missing:
            return [DeviceInfo(self.name, "CPU", "cpu", False, missing)]
        found = _mac_devices()
        return [
            DeviceInfo(self.name, name, kind, kind in found, "" if kind in found else "this Mac has none")
            for kind, name in (("cpu", "CPU"), ("gpu", "GPU"), ("npu", "Neural Engine"))
        ]

    def open(self, path: Path, device: str, threads: int | None) -> Session:
        """Load a package on a device; "auto" is the CPU. `threads` has no effect: Core ML chooses.

        Raises:
            DeviceError: the device is not available, or would run no operation of the package.
            BackendError: coremltools is not installed, or the package is damaged.
        """
        return self._open(path, device, None)

    def open_cached(self, path: Path, device: str, threads: int | None, cache: CompileCache) -> Session:
        """As `open`, with the model that Core ML compiled; the NumPy reference compiles nothing."""
        return self._open(path, device, cache)

    def _open(self, path: Path, device: str, cache: CompileCache | None) -> Session:
        import_coremltools()
        hint = "" if sys.platform == "darwin" else f"{_APPLE_ONLY}; --device cpu runs the package in NumPy"
        chosen = select_device(self.devices(), device, "Core ML", hint)
        if chosen.name == MIL_REFERENCE:
            return Session(load(path).run, MIL_REFERENCE)
        return _open_on_mac(path, chosen.kind, cache)


def _mac_devices() -> set[str]:
    """Return the kinds of device that Core ML finds."""
    import_coremltools()
    from coremltools.models.compute_device import MLComputeDevice

    found = {type(device).__name__ for device in MLComputeDevice.get_all_compute_devices()}
    return {kind for kind, (_, name) in _UNITS.items() if name in found}


def _open_on_mac(path: Path, kind: str, cache: CompileCache | None) -> Session:
    ct = import_coremltools()
    spec = read_spec(path)
    units = getattr(ct.ComputeUnit, _UNITS[kind][0])
    try:
        with suppress_output():
            model, compiled = _load_model(ct, path, units, cache)
            on_device, total = _operations_on(compiled, units, _UNITS[kind][1])
    except Exception as error:
        raise BackendError(f"Core ML cannot load {path}: {one_line(error)}") from error
    if not on_device:
        raise DeviceError(f"the {kind} runs no operation of {path.name}; ask for --device cpu")
    return _session(model, spec, kind, {kind: on_device, "elsewhere": total - on_device})


def _load_model(ct: Any, path: Path, units: Any, cache: CompileCache | None) -> tuple[Any, str]:
    """Return the model and the path of what Core ML compiled it to."""
    if cache is None:
        model = ct.models.MLModel(str(path), compute_units=units)
        return model, model.get_compiled_model_path()
    key = ("coreml", ct.__version__, platform.mac_ver()[0], str(units), processor_id())
    folder = cache.find(*key)
    if folder is not None:
        try:
            compiled = str(folder / _COMPILED)
            return ct.models.CompiledMLModel(compiled, compute_units=units), compiled
        except Exception:
            # Undamaged, and still refused: another build of the same version, say.
            cache.discard(*key)
    model = ct.models.MLModel(str(path), compute_units=units)
    compiled = model.get_compiled_model_path()
    cache.store(lambda to: _copy(compiled, to / _COMPILED), *key)
    return model, compiled


def _copy(source: str, target: Path) -> None:
    shutil.copytree(source, target)


def _operations_on(compiled: str, units: Any, device: str) -> tuple[int, int]:
    """Count the operations that Core ML plans to run on that class of device, and all operations."""
    from coremltools.models.compute_plan import MLComputePlan

    plan = MLComputePlan.load_from_path(compiled, compute_units=units)
    operations = plan.model_structure.program.functions["main"].block.operations
    usages = [u for u in map(plan.get_compute_device_usage_for_mlprogram_operation, operations) if u]
    return sum(type(u.preferred_compute_device).__name__ == device for u in usages), len(usages)


BACKEND = CoreML()
