"""Inference runtimes, one file each, found lazily.

A backend is an object with a `name`, the `formats` it reads, and `open()`; see `Backend`. Other packages add
theirs by an entry point: docs/guides/write-a-backend.md.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import cast

from ..errors import BackendError
from ..types import Arrays
from .base import DEVICES, Backend, DeviceInfo, Session

__all__ = [
    "DEVICES",
    "Arrays",
    "Backend",
    "DeviceInfo",
    "Session",
    "all_devices",
    "backend_names",
    "devices_of",
    "find_backends",
    "get_backend",
    "is_here",
]

# In the order in which they are preferred; each names a module that holds a `BACKEND`.
_CHOSEN_BY_THEMSELVES = ("onnxruntime", "openvino", "coreml")
_BY_NAME_ONLY = ("mock",)
_OWN = (*_CHOSEN_BY_THEMSELVES, *_BY_NAME_ONLY)


def backend_names() -> tuple[str, ...]:
    """The backends that sam-edge knows: its own, then those of other packages."""
    return (*_OWN, *_installed())


def get_backend(name: str) -> Backend:
    """The backend of that name, whether or not its runtime is installed.

    Raises:
        BackendError: no such backend.
    """
    if name in _OWN:
        return cast(Backend, importlib.import_module(f"{__name__}.{name}").BACKEND)
    if name not in _installed():
        raise BackendError(f"unknown backend {name!r}; known: auto, {', '.join(backend_names())}")
    return _installed()[name]


def find_backends(name: str = "auto") -> Iterator[Backend]:
    """The backends that `name` allows, in the order in which they are preferred; imported as they are taken.

    Raises:
        BackendError: no such backend.
    """
    if name != "auto":
        yield get_backend(name)
        return
    yield from map(get_backend, _CHOSEN_BY_THEMSELVES)
    yield from _installed().values()


def devices_of(backend: Backend) -> list[DeviceInfo]:
    """The backend's devices; where another package's fails at that, one that says so."""
    try:
        return list(backend.devices())
    except Exception as error:
        reason = " ".join(f"it cannot list its devices: {type(error).__name__}: {error}".split())
        return [DeviceInfo(backend.name, "-", "-", False, reason)]


def all_devices() -> list[DeviceInfo]:
    """Every device of every backend, those that cannot be used included."""
    from .plugins import installed

    refused = installed(frozenset({*_OWN, "auto"}))[1]
    backends = [*map(get_backend, backend_names()), *refused]
    return [device for backend in backends for device in devices_of(backend)]


def is_here(backend: Backend, device: str = "auto") -> bool:
    """Whether the backend's runtime is installed and has such a device; one that fails at that has not."""
    try:
        return backend.has(device)
    except Exception:
        return False


def _installed() -> dict[str, Backend]:
    from .plugins import installed

    return installed(frozenset({*_OWN, "auto"}))[0]
