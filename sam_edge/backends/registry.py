"""The registry of backends: sam-edge's own, imported by name when asked for, then those of other packages.

sam-edge's own are one module or package each beside this one, and hold their backend as `BACKEND`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import cast

from ..errors import BackendError
from .base import Backend, DeviceInfo

# In order of preference.
AUTO_BACKENDS = ("onnxruntime", "openvino", "coreml")
# Used only when named.
EXPLICIT_BACKENDS = ("mock",)
BUILT_IN = (*AUTO_BACKENDS, *EXPLICIT_BACKENDS)
# Names that a backend of another package may not take.
_RESERVED = frozenset({*BUILT_IN, "auto"})


def backend_names() -> tuple[str, ...]:
    """Names of all known backends: sam-edge's own, then those of other packages."""
    return (*BUILT_IN, *_plugins())


def get_backend(name: str) -> Backend:
    """Return the backend of that name, whether or not its runtime is installed.

    Raises:
        BackendError: no such backend.
    """
    if name in BUILT_IN:
        return cast(Backend, importlib.import_module(f"{__package__}.{name}").BACKEND)
    if name not in _plugins():
        raise BackendError(f"unknown backend {name!r}; known: auto, {', '.join(backend_names())}")
    return _plugins()[name]


def find_backends(name: str = "auto") -> Iterator[Backend]:
    """Yield the backends that `name` allows, in order of preference; each is imported when it is yielded.

    Raises:
        BackendError: no such backend.
    """
    if name != "auto":
        yield get_backend(name)
        return
    yield from map(get_backend, AUTO_BACKENDS)
    yield from _plugins().values()


def devices_of(backend: Backend) -> list[DeviceInfo]:
    """List the backend's devices; if that raises, one unavailable device with the error as its reason."""
    try:
        return list(backend.devices())
    except Exception as error:
        reason = " ".join(f"cannot list its devices: {type(error).__name__}: {error}".split())
        return [DeviceInfo(backend.name, "-", "-", False, reason)]


def all_devices() -> list[DeviceInfo]:
    """List every device of every backend, unavailable ones included."""
    from .plugins import installed

    refused = installed(_RESERVED)[1]
    backends = [*map(get_backend, backend_names()), *refused]
    return [device for backend in backends for device in devices_of(backend)]


def is_available(backend: Backend, device: str = "auto") -> bool:
    """Whether the backend's runtime is installed and has such a device; False if it raises."""
    try:
        return backend.has_device(device)
    except Exception:
        return False


def _plugins() -> dict[str, Backend]:
    from .plugins import installed

    return installed(_RESERVED)[0]
