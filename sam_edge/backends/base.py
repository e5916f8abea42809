"""The backend interface. docs/guides/write-a-backend.md has a complete example.

class Abacus(Backend):
    name = "abacus"
    formats = ("onnx",)

    def open(self, path, device, threads):
        self.select_device(device)
        graph = abacus.load(path)
        return Session(graph.run, "cpu")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import BackendError, DeviceError
from ..types import Arrays
from .compile_cache import CompileCache

# Device names that every backend understands, besides the names of its own devices.
DEVICES = ("auto", "cpu", "gpu", "npu")


@dataclass(frozen=True)
class DeviceInfo:
    """A device that a backend knows.

    Attributes:
        backend: the backend's name.
        name: the device's own name, such as "GPU.1" or "CUDAExecutionProvider".
        kind: "cpu", "gpu", "npu", or another word for a device that is used only when named.
        available: whether it can be used on this machine.
        reason: why it is not available; "" if it is.
        simulated: whether it is a chip's simulator, bit for bit but slow.
    """

    backend: str
    name: str
    kind: str
    available: bool
    reason: str
    simulated: bool = False

    def matches(self, device: str) -> bool:
        """Whether `device` ("auto", a kind, or this device's name in any case) covers this device.

        The name of an ONNX Runtime execution provider may leave out "ExecutionProvider".
        """
        requested, name = device.casefold(), self.name.casefold()
        if requested in DEVICES:
            return requested in ("auto", self.kind)
        return requested in (name, name.removesuffix("executionprovider"))


class Session:
    """One loaded graph; `run` may be called from several threads at once.

    Attributes:
        device: where it really runs: "cpu", "gpu", "npu", or a more exact word such as "npu-simulated".
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        device: str,
        close: Callable[[], None] | None = None,
        placement: dict[str, int] | None = None,
        compute_placement: dict[str, int] | None = None,
    ) -> None:
        """Create a session.

        Args:
            run: computes the outputs from the inputs, both arrays by tensor name.
            device: the attribute `device`.
            close: frees what garbage collection would not.
            placement: the property `placement`.
            compute_placement: the property `compute_placement`.
        """
        self._run: Callable[[Arrays], Arrays] | None = run
        self._close = close
        self.device = device
        self._placement = placement
        self._compute_placement = compute_placement

    @property
    def placement(self) -> dict[str, int] | None:
        """Number of graph nodes by execution provider or device; None if the runtime does not report it."""
        return self._placement

    @property
    def compute_placement(self) -> dict[str, int] | None:
        """As `placement`, counting only matmuls and convolutions."""
        return self._compute_placement

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the graph: arrays by input name -> arrays by output name.

        Names, dtypes and shapes are those in the bundle's manifest.

        Raises:
            BackendError: the graph cannot be run, or was closed.
        """
        run = self._run
        if run is None:
            raise BackendError("this model was closed; load it again")
        return run(dict(inputs))

    def close(self) -> None:
        """Free the graph's memory once calls in progress have ended; further calls do nothing."""
        close, self._run, self._close = self._close, None, None
        if close is not None:
            close()


class Backend:
    """An inference runtime. A subclass sets `name` and `formats` and defines `open`.

    Attributes:
        name: how the user asks for it.
        formats: the formats it reads: "onnx", "openvino", "coreml".
        has_stages: whether it also opens a decoder's `scorer` and `upscaler` graphs, for everything-mode;
            without them the whole decoder is used.
        concurrent_open: whether `open` and `open_cached` may be called from several threads at once.
        defers_file_check: whether `open_cached` calls `cache.check_files()` itself, only when it reads the
            graph; otherwise the caller checks every file first.
    """

    name: str
    formats: tuple[str, ...]
    has_stages = True
    concurrent_open = False
    defers_file_check = False

    def open(self, path: Path, device: str, threads: int | None) -> Session:
        """Load a graph.

        Args:
            path: BUNDLE/VARIANT/NAME, NAME being encoder, decoder, scorer or upscaler with the suffix .onnx,
                .xml or .mlpackage.
            device: "auto", "cpu", "gpu", "npu", or the name of one of `devices()`. The session runs there or
                `open` fails; it never uses another device instead.
            threads: threads within one operator; None for the backend's own choice.

        Raises:
            DeviceError: the device is not available, or can run no part of the graph.
            BackendError: the runtime is not installed, or refuses the graph.
        """
        raise NotImplementedError

    def open_without_fallback(self, path: Path, device: str, threads: int | None) -> Session:
        """As `open`, but fail unless the device runs every node: for graphs exported for that device.

        Raises:
            DeviceError, BackendError: as `open`; also where a node would run on another device.
        """
        session = self.open(path, device, threads)
        if len([count for count in (session.placement or {}).values() if count]) > 1:
            session.close()
            raise DeviceError(f"{device} cannot run all of {path}, which was exported for it")
        return session

    def open_cached(self, path: Path, device: str, threads: int | None, cache: CompileCache) -> Session:
        """As `open`, storing what was compiled in `cache` and reusing it; just `open` unless overridden."""
        return self.open(path, device, threads)

    def devices(self) -> list[DeviceInfo]:
        """Every device this backend knows, available or not, the preferred of a kind first."""
        return [DeviceInfo(self.name, "CPU", "cpu", True, "")]

    def has_device(self, device: str) -> bool:
        """Whether the runtime is installed and has such a device."""
        return any(one.available and one.matches(device) for one in self.devices())

    def select_device(self, device: str) -> DeviceInfo:
        """Return the device to use for `device`, as `open` takes it.

        Raises:
            DeviceError: it is not available; lists those that are.
        """
        return select_device(self.devices(), device, self.name)


def select_device(devices: Sequence[DeviceInfo], device: str, runtime: str, hint: str = "") -> DeviceInfo:
    """Return the first available one of `devices` that matches `device`; "auto" means a CPU.

    Args:
        devices: the backend's devices.
        device: as `Backend.open` takes it.
        runtime: the runtime's name for messages.
        hint: what would add a device of the kind asked for.

    Raises:
        DeviceError: no such device is available; lists those that are and why the one asked for is not.
    """
    requested = "cpu" if device.casefold() == "auto" else device
    matching = [one for one in devices if one.matches(requested)]
    for one in matching:
        if one.available:
            return one
    available = ", ".join(f"{one.kind} ({one.name})" for one in devices if one.available) or "nothing"
    if not matching and requested.casefold() not in DEVICES:
        names = ", ".join(dict.fromkeys(one.name for one in devices))
        raise DeviceError(
            f"unknown device {device!r} for {runtime}; expected one of {', '.join(DEVICES)}, {names}"
        )
    if not hint:
        hint = "; ".join(f"{one.name}: {one.reason}" for one in matching) or "no package is known to add one"
    raise DeviceError(f"{runtime} has no {requested} on this machine; available: {available}; {hint}")
