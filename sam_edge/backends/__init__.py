"""Inference runtimes, one file each, found lazily.

A backend is an object with a `name`, the `formats` it reads, `devices()` and `open()`; see `Backend`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from ..errors import BackendError

Arrays = dict[str, NDArray[Any]]

# name -> module holding a `BACKEND`
_MODULES = {name: f"sam_edge.backends.{name}" for name in ("onnxruntime", "openvino", "coreml")}
DEVICES = ("auto", "cpu", "gpu", "npu")


@dataclass(frozen=True)
class DeviceInfo:
    """A device as a backend sees it: `kind` is cpu, gpu or npu; `reason` says why it is not there."""

    backend: str
    name: str
    kind: str
    available: bool
    reason: str


class Session(Protocol):
    """One loaded graph. `device` is where it really runs."""

    device: str

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Named arrays in, named arrays out; safe to call from several threads."""

    def close(self) -> None:
        """Free the graph's memory."""


class Backend(Protocol):
    """An inference runtime."""

    name: str
    formats: tuple[str, ...]

    def devices(self) -> list[DeviceInfo]:
        """Every device this backend knows, there or not."""

    def open(self, path: Path, device: str, threads: int | None) -> Session:
        """Load a graph on `device` (cpu, gpu, npu or auto), never silently on another."""


def backend_names() -> tuple[str, ...]:
    """The backends that sam-edge knows."""
    return tuple(_MODULES)


def get_backend(name: str) -> Backend:
    """The backend of that name, whether or not its runtime is installed.

    Raises:
        BackendError: no such backend.
    """
    if name not in _MODULES:
        raise BackendError(f"unknown backend {name!r}; known: auto, {', '.join(_MODULES)}")
    return cast(Backend, importlib.import_module(_MODULES[name]).BACKEND)


def find_backends(name: str = "auto") -> list[Backend]:
    """The backends that `name` allows, in the order in which they are preferred.

    Raises:
        BackendError: no such backend.
    """
    return [get_backend(one) for one in (backend_names() if name == "auto" else (name,))]


def is_here(backend: Backend, device: str = "auto") -> bool:
    """Whether the backend's runtime is installed and has such a device."""
    return any(d.available and device in ("auto", d.kind) for d in backend.devices())
