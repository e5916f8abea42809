"""ONNX Runtime, with whichever execution providers the installed package has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, DeviceError
from . import DEVICES, Arrays, DeviceInfo

# provider -> (kind, the package that has it)
_PROVIDERS = {
    "CPUExecutionProvider": ("cpu", "onnxruntime"),
    "CUDAExecutionProvider": ("gpu", "onnxruntime-gpu"),
    "ROCMExecutionProvider": ("gpu", "onnxruntime-rocm"),
    "MIGraphXExecutionProvider": ("gpu", "onnxruntime-migraphx"),
    "DmlExecutionProvider": ("gpu", "onnxruntime-directml"),
    "CoreMLExecutionProvider": ("npu", "onnxruntime (on macOS)"),
    "QNNExecutionProvider": ("npu", "onnxruntime-qnn"),
}


def _import() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError("ONNX Runtime is not installed; pip install 'sam-edge[onnxruntime]'") from error
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


class OnnxRuntimeSession:
    """One graph in ONNX Runtime; `run` may be called from several threads."""

    def __init__(self, session: Any, device: str) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs()]
        self.device = device

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        """Named arrays in, named arrays out."""
        session = self._session
        if session is None:
            raise BackendError("this model was closed; load it again")
        try:
            return dict(zip(self._names, session.run(self._names, dict(inputs)), strict=True))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise BackendError(f"ONNX Runtime cannot run the graph: {reason}") from error

    def close(self) -> None:
        """Free the graph's memory."""
        self._session = None


class OnnxRuntime:
    """The ONNX Runtime backend."""

    name = "onnxruntime"
    formats = ("onnx",)

    def devices(self) -> list[DeviceInfo]:
        """Every execution provider known to sam-edge, with the package that would add it."""
        try:
            there = _import().get_available_providers()
        except BackendError as error:
            return [DeviceInfo(self.name, "CPUExecutionProvider", "cpu", False, str(error))]
        return [
            DeviceInfo(
                self.name,
                provider,
                kind,
                provider in there,
                "" if provider in there else f"not in the installed package; {package} has it",
            )
            for provider, (kind, package) in _PROVIDERS.items()
        ]

    def open(self, path: Path, device: str, threads: int | None) -> OnnxRuntimeSession:
        """Load an ONNX file on a device; "auto" is the CPU.

        Raises:
            DeviceError: the device is not there, or did not take the graph.
            BackendError: not installed, or it refuses the file.
        """
        if device not in DEVICES:
            raise DeviceError(f"unknown device {device!r}; expected one of {', '.join(DEVICES)}")
        ort = _import()
        kind = "cpu" if device == "auto" else device
        known = self.devices()
        chosen = [d.name for d in known if d.kind == kind and d.available]
        if not chosen:
            there = ", ".join(f"{d.kind} ({d.name})" for d in known if d.available)
            adds = ", ".join(p for k, p in _PROVIDERS.values() if k == kind)
            raise DeviceError(
                f"no {kind} for ONNX Runtime here; there is: {there}; a {kind} comes with: {adds}"
            )
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            session = ort.InferenceSession(str(path), options, providers=chosen[:1])
        except Exception as error:
            reason = " ".join(str(error).split())
            raise BackendError(f"ONNX Runtime cannot load {path}: {reason}") from error
        if session.get_providers()[0] != chosen[0]:
            raise DeviceError(
                f"{chosen[0]} did not start (it fell back to {session.get_providers()[0]}); check "
                "its drivers, or ask for --device cpu"
            )
        return OnnxRuntimeSession(session, kind)


BACKEND = OnnxRuntime()
