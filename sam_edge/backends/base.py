"""The seam: what a backend is. docs/guides/write-a-backend.md has a complete one.

class Abacus(Backend):
    name = "abacus"
    formats = ("onnx",)

    def open(self, path, device, threads):
        self.pick(device)
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
from .compile_cache import Warm

# The words that every backend understands; besides them, each takes the names of its own devices.
DEVICES = ("auto", "cpu", "gpu", "npu")


@dataclass(frozen=True)
class DeviceInfo:
    """A device as a backend sees it: `kind` is cpu, gpu or npu, or another word for one that is taken by its
    name only; `reason` says why it is not there."""

    backend: str
    name: str
    kind: str
    available: bool
    reason: str

    def is_meant_by(self, device: str) -> bool:
        """Whether `device` ("auto", a kind, or this device's name in any case) may be this one.

        The name of an ONNX Runtime execution provider may leave out "ExecutionProvider".
        """
        asked, name = device.casefold(), self.name.casefold()
        if asked in DEVICES:
            return asked in ("auto", self.kind)
        return asked in (name, name.removesuffix("executionprovider"))


class Session:
    """One loaded graph; `run` may be called from several threads.

    Attributes:
        device: where it really runs: "cpu", "gpu", "npu", or a word of the backend's own such as
            "npu-simulated".
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        device: str,
        close: Callable[[], None] | None = None,
        placement: dict[str, int] | None = None,
        compute_placement: dict[str, int] | None = None,
    ) -> None:
        """`run` takes and returns named arrays; `close` frees what garbage collection would not."""
        self._run: Callable[[Arrays], Arrays] | None = run
        self._close = close
        self.device = device
        self._placement = placement
        self._compute_placement = compute_placement

    @property
    def placement(self) -> dict[str, int] | None:
        """How many of the graph's nodes each part of the runtime took; None where it does not say."""
        return self._placement

    @property
    def compute_placement(self) -> dict[str, int] | None:
        """`placement` of matrix products and convolutions only."""
        return self._compute_placement

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Named arrays in, named arrays out.

        Raises:
            BackendError: the graph cannot be run, or was closed.
        """
        run = self._run
        if run is None:
            raise BackendError("this model was closed; load it again")
        return run(dict(inputs))

    def close(self) -> None:
        """Free the graph's memory, once the runs under way have ended; a second time, do nothing."""
        close, self._run, self._close = self._close, None, None
        if close is not None:
            close()


class Backend:
    """An inference runtime: a `name`, the `formats` it reads ("onnx", "openvino", "coreml"), and `open`.

    `has_stages`: whether it also opens a decoder's stages, for everything-mode; else the whole decoder does.
    `opens_together`: whether `open` and `open_warm` may be called from several threads at once.
    `checks_warm`: whether `open_warm` calls `warm.check()` where it reads the graph, and not where an entry
    will do; else all files are compared before it is called.
    """

    name: str
    formats: tuple[str, ...]
    has_stages = True
    opens_together = False
    checks_warm = False

    def open(self, path: Path, device: str, threads: int | None) -> Session:
        """Load a graph.

        Args:
            path: the graph: BUNDLE/VARIANT/encoder.onnx, .xml or .mlpackage, or decoder, scorer or upscaler.
            device: "auto", "cpu", "gpu", "npu", or the name of one of `devices()`; never silently another.
            threads: threads within one operator; None for the backend's own choice.

        Raises:
            DeviceError: the device is not there, or takes nothing of the graph.
            BackendError: the runtime is not installed, or refuses the graph.
        """
        raise NotImplementedError

    def open_whole(self, path: Path, device: str, threads: int | None) -> Session:
        """As `open`, of a graph that was made for the device and must run on it as a whole.

        Raises:
            DeviceError, BackendError: as `open`; and where a part would run on another device.
        """
        session = self.open(path, device, threads)
        if len([count for count in (session.placement or {}).values() if count]) > 1:
            session.close()
            raise DeviceError(f"{device} does not take the whole of {path}, which was made for it")
        return session

    def devices(self) -> list[DeviceInfo]:
        """Every device this backend knows, there or not, the preferred of a kind first."""
        return [DeviceInfo(self.name, "CPU", "cpu", True, "")]

    def has(self, device: str) -> bool:
        """Whether the runtime is installed and has such a device."""
        return any(one.available and one.is_meant_by(device) for one in self.devices())

    def pick(self, device: str) -> DeviceInfo:
        """The device that `device` means, for `open`.

        Raises:
            DeviceError: it is not there; lists what is.
        """
        return pick_device(self.devices(), device, self.name)

    def open_warm(self, path: Path, device: str, threads: int | None, warm: Warm) -> Session:
        """As `open`, keeping what was compiled in `warm`; where there is nothing to keep, just `open`."""
        return self.open(path, device, threads)


def pick_device(devices: Sequence[DeviceInfo], device: str, runtime: str, adds: str = "") -> DeviceInfo:
    """The first of `devices` that is here and that `device` means; "auto" means a CPU.

    Args:
        devices: a backend's.
        device: as `Backend.open` takes it.
        runtime: the backend's name in messages.
        adds: what would add a device of the kind asked for.

    Raises:
        DeviceError: there is none; lists what is there and why the one asked for is not.
    """
    asked = "cpu" if device.casefold() == "auto" else device
    meant = [one for one in devices if one.is_meant_by(asked)]
    for one in meant:
        if one.available:
            return one
    there = ", ".join(f"{one.kind} ({one.name})" for one in devices if one.available) or "nothing"
    if not meant and asked.casefold() not in DEVICES:
        names = ", ".join(dict.fromkeys(one.name for one in devices))
        raise DeviceError(
            f"unknown device {device!r} for {runtime}; expected one of {', '.join(DEVICES)}, {names}"
        )
    if not adds:
        adds = "; ".join(f"{one.name}: {one.reason}" for one in meant) or "nothing known would add one"
    raise DeviceError(f"no {asked} for {runtime} here; there is: {there}; {adds}")
