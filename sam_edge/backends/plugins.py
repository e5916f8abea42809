"""Backends of other packages: entry points of the group `sam_edge.backends`.

Imported only when a name is asked for that is none of sam-edge's own, or when all are listed: searching the
installed packages takes some tens of milliseconds.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ..errors import BackendError
from .base import Backend, DeviceInfo, Session

GROUP = "sam_edge.backends"


class BrokenBackend(Backend):
    """Stands for a backend that cannot be used, and says why."""

    formats = ("onnx", "openvino", "coreml")

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason

    def devices(self) -> list[DeviceInfo]:
        """One unavailable device, with the reason."""
        return [DeviceInfo(self.name, "-", "-", False, self.reason)]

    def open(self, path: Path, device: str, threads: int | None) -> Session:
        """Raise `BackendError`."""
        raise BackendError(f"the backend {self.name} cannot be used: {self.reason}")


@cache
def installed(reserved: frozenset[str]) -> tuple[dict[str, Backend], tuple[BrokenBackend, ...]]:
    """Load the backends of other packages.

    Returns:
        backends by name; and one `BrokenBackend` for each whose name is in `reserved` or was used before.
    """
    from importlib.metadata import entry_points

    found: dict[str, Backend] = {}
    refused = []
    points = sorted(entry_points(group=GROUP), key=lambda point: (point.name, _package(point)))
    for point in points:
        if point.name in reserved or point.name in found:
            owner = "sam-edge" if point.name in reserved else "another package"
            reason = f"the backend of {_package(point)} is not used: {owner} already has one of this name"
            refused.append(BrokenBackend(point.name, reason))
        else:
            found[point.name] = _load(point)
    return found, tuple(refused)


def _package(point: Any) -> str:
    return str(point.dist.name) if point.dist is not None else str(point.value)


def _load(point: Any) -> Backend:
    """Load a backend; a `BrokenBackend` if anything goes wrong."""
    try:
        loaded = point.load()
        backend = loaded() if isinstance(loaded, type) else loaded
        if not isinstance(backend, Backend):
            raise TypeError(f"{point.value} is not a subclass of sam_edge.backends.Backend")
        if backend.name != point.name:
            raise ValueError(f"its name is {backend.name!r}, its entry point's name {point.name!r}")
        if not isinstance(backend.formats, tuple):
            raise TypeError("its formats are not a tuple of names")
        return backend
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return BrokenBackend(point.name, f"{reason} (in the package {_package(point)})")
