"""The ONNX Runtime backend."""

from __future__ import annotations

from pathlib import Path

from ...errors import BackendError
from ..base import Backend, DeviceInfo, Session
from ..compile_cache import CompileCache
from .providers import CPU, NAME, NPU_SIMULATED, find_providers, select_provider
from .session import import_onnxruntime, open_session


class OnnxRuntime(Backend):
    """The ONNX Runtime backend."""

    name = NAME
    formats = ("onnx",)
    concurrent_open = True
    defers_file_check = True

    def devices(self) -> list[DeviceInfo]:
        """Every execution provider, installed or known to sam-edge, with the package that would add it."""
        try:
            ort = import_onnxruntime()
        except BackendError as error:
            return [DeviceInfo(self.name, CPU, "cpu", False, str(error))]
        return [provider.info for provider in find_providers(ort)]

    def has_device(self, device: str) -> bool:
        """Whether ONNX Runtime is installed and has such a device.

        The CPU provider is in every package, so for "auto" and "cpu" plugins are not searched.
        """
        if device.casefold() not in ("auto", "cpu"):
            return super().has_device(device)
        try:
            import_onnxruntime()
        except BackendError:
            return False
        return True

    def open(self, path: Path, device: str, threads: int | None) -> Session:
        """Load an ONNX file on a device; "auto" is the CPU. An execution provider's name is a device, too.

        Raises:
            DeviceError: the device is not available, or runs no node of the graph.
            BackendError: ONNX Runtime is not installed, or refuses the file.
        """
        return self._open(path, device, threads)

    def open_cached(self, path: Path, device: str, threads: int | None, cache: CompileCache) -> Session:
        """As `open`, from the graph as ONNX Runtime optimised it, or with what the provider compiled."""
        return self._open(path, device, threads, cache=cache)

    def open_without_fallback(self, path: Path, device: str, threads: int | None) -> Session:
        """As `open`, with ONNX Runtime forbidden to run any node on its CPU provider.

        Raises:
            DeviceError: also where a node would run on the CPU.
        """
        return self._open(path, device, threads, allow_fallback=False)

    def _open(
        self,
        path: Path,
        device: str,
        threads: int | None,
        *,
        cache: CompileCache | None = None,
        allow_fallback: bool = True,
    ) -> Session:
        ort = import_onnxruntime()
        provider = select_provider(ort, device)
        if cache is not None and provider.name != CPU:
            cache.check_files()
        if provider.runs_on == NPU_SIMULATED:
            # Imports modules that nothing else needs.
            from . import isolated

            return isolated.open_isolated(
                path, device=provider.info.name, threads=threads, allow_fallback=allow_fallback
            )
        return open_session(ort, provider, path, threads, cache=cache, allow_fallback=allow_fallback)


BACKEND = OnnxRuntime()
