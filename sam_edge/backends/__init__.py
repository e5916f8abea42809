"""Inference runtimes. A backend is a `Backend`: a name, the formats it reads, and `open`.

base            the interface: Backend, Session, DeviceInfo
registry        finds backends by name; imports each when it is asked for
plugins         backends of other packages, by entry point: docs/guides/write-a-backend.md
compile_cache   compiled graphs kept on disk between processes
onnxruntime/ openvino coreml mock     one backend each
mil_reference/  Core ML packages run in NumPy
"""

from ..types import Arrays
from .base import DEVICES, Backend, DeviceInfo, Session
from .registry import (
    AUTO_BACKENDS,
    all_devices,
    backend_names,
    devices_of,
    find_backends,
    get_backend,
    is_available,
)

__all__ = [
    "AUTO_BACKENDS",
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
    "is_available",
]
