"""Backends of other packages: entry points of the group `sam_edge.backends`.

Nothing here is imported before a name is asked for that sam-edge has not, or all are to be listed: looking
through the installed packages takes some tens of milliseconds.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ..errors import BackendError
from .base import Backend, DeviceInfo, Session

GROUP = "sam_edge.backends"


class BrokenBackend(Backend):
    """In the place of a backend that cannot be used; says why."""

    formats = ("onnx", "openvino", "coreml")

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason

    def devices(self) -> list[DeviceInfo]:
        """One, which is not there."""
        return [DeviceInfo(self.name, "-", "-", False, self.reason)]

    def open(self, path: Path, device: str, threads: int | None) -> Session:
        """Raise `BackendError`."""
        raise BackendError(f"the backend {self.name} cannot be used: {self.reason}")


@cache
def installed(own: frozenset[str]) -> tuple[dict[str, Backend], tuple[BrokenBackend, ...]]:
    """Backends of other packages by name, and those whose name is taken: by `own`, or by one before them."""
    from importlib.metadata import entry_points

    found: dict[str, Backend] = {}
    refused = []
    points = sorted(entry_points(group=GROUP), key=lambda point: (point.name, _package(point)))
    for point in points:
        if point.name in own or point.name in found:
            other = "sam-edge" if point.name in own else "another package"
            refused.append(
                BrokenBackend(
                    point.name, f"not used: {_package(point)} calls its backend as {other} calls one"
                )
            )
        else:
            found[point.name] = _load(point)
    return found, tuple(refused)


def _package(point: Any) -> str:
    return str(point.dist.name) if point.dist is not None else str(point.value)


def _load(point: Any) -> Backend:
    """The backend; a `BrokenBackend` where anything at all goes wrong."""
    try:
        loaded = point.load()
        backend = loaded() if isinstance(loaded, type) else loaded
        if not isinstance(backend, Backend):
            raise TypeError(f"{point.value} is no subclass of sam_edge.backends.Backend")
        if backend.name != point.name:
            raise ValueError(f"its name is {backend.name!r}, its entry point's {point.name!r}")
        if not isinstance(backend.formats, tuple):
            raise TypeError("its formats are no tuple of names")
        return backend
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return BrokenBackend(point.name, f"{reason} (of the package {_package(point)})")
