"""Opens the graphs of one variant on one backend and device.

`GraphOpener` is what a `Sam` is made from. `BundleOpener` reads a bundle; `OpenedGraphs` holds sessions that
somebody else has opened.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from ..backends import Backend, Session
from ..backends.compile_cache import CompileCache, graph_id
from ..bundle.bundle import Bundle
from ..bundle.variant import ClipVariant, Variant
from ..errors import BackendError, BundleError, DeviceError
from ..system.threads import run_concurrently
from ..tasks.clip import Clip, open_clip
from ..types import Choice
from .choice import Chosen, Request, explain_choice, used_device
from .targets import check_machine, forbids_fallback


class GraphOpener(Protocol):
    """Opens the graphs of a `Sam`."""

    @property
    def bundle(self) -> Bundle:
        """The bundle that the graphs belong to."""

    @property
    def variant(self) -> Variant:
        """The variant that the graphs belong to."""

    @property
    def backend(self) -> str:
        """The name of the backend that runs them."""

    @property
    def threads(self) -> int | None:
        """Threads within one operator; None for the backend's own choice."""

    @property
    def has_stages(self) -> bool:
        """Whether it opens "scorer" and "upscaler" as well."""

    def open(self, *graphs: str) -> tuple[Session, ...]:
        """Open graphs by their names in `Variant.graphs`; all of them or, where one fails, none.

        Raises:
            IntegrityError: a file is not as exported.
            BackendError, DeviceError: as `Backend.open`.
        """

    def clip(self) -> Clip:
        """Open the bundle's CLIP; raises `BundleError` where there is none."""

    def explain(self) -> list[Choice]:
        """Say why each backend, device and variant was chosen or not."""

    def on(self, device: str) -> GraphOpener:
        """Return an opener for the same graphs on another device, with the same backend and settings."""


@dataclass(frozen=True)
class BundleOpener:
    """Opens the graphs of a bundle's variant, from a cache of compiled graphs where there is one.

    Attributes:
        bundle: where the files are.
        chosen: the variant, and the backend that runs it.
        request: what was asked for; its device is where graphs are opened.
        threads: threads within one operator; None for the backend's own choice.
        check_integrity: whether files are compared with the manifest before they are read.
        cache_dir: a directory for compiled graphs; None for none.
    """

    bundle: Bundle
    chosen: Chosen
    request: Request
    threads: int | None = None
    check_integrity: bool = True
    cache_dir: Path | None = None
    # Files are compared once, whichever graph or device comes first.
    _checked: set[str] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise BackendError(
                f"threads is {self.threads}; expected 1 or more, or none for the backend's choice"
            )

    @property
    def variant(self) -> Variant:
        """The variant that the graphs belong to."""
        return self.chosen.variant

    @property
    def backend(self) -> str:
        """The name of the backend that runs them."""
        return self.chosen.backend.name

    @property
    def has_stages(self) -> bool:
        """Whether it opens "scorer" and "upscaler" as well."""
        return self.chosen.backend.has_stages and self.variant.scorer is not None

    def open(self, *graphs: str) -> tuple[Session, ...]:
        """Open graphs by their names, at once where the backend allows it; see `GraphOpener.open`."""
        calls = [partial(self._open, self.variant, graph, self.check_integrity) for graph in graphs]
        return _open_all(calls, self.chosen.backend.concurrent_open)

    def clip(self) -> Clip:
        """Open the bundle's CLIP; its files are always compared with the manifest."""
        return open_clip(self.bundle, self.variant.id, partial(self._open, checked=True))

    def explain(self) -> list[Choice]:
        """Say why each backend, device and variant was chosen or not."""
        return explain_choice(self.bundle, self.request, self.chosen)

    def on(self, device: str) -> BundleOpener:
        """Return an opener for the same graphs on another device, with the same backend and settings.

        Raises:
            DeviceError: the device is a CPU without what the variant requires.
        """
        if self.variant.requires:
            check_machine(self.bundle, self.variant, used_device(self.chosen.backend, device))
        return replace(self, request=replace(self.request, device=device))

    def _open(self, entry: Variant | ClipVariant, graph: str, checked: bool) -> Session:
        backend, device, path = self.chosen.backend, self.request.device, entry.graphs[graph].path
        cached = self.cache_dir is not None and not runs_without_fallback(self.variant, device)
        if not (cached and backend.defers_file_check):
            self._check_files()
        if self.cache_dir is None or not cached:
            return open_graph(self.bundle, self.variant, path, backend, device, self.threads)
        identity = graph_id(self.bundle.path, entry, graph, checked)
        cache = CompileCache(self.cache_dir, identity, self._check_files)
        return backend.open_cached(self.bundle.path / path, device, self.threads, cache)

    def _check_files(self) -> None:
        with self._lock:
            if self.check_integrity and self.variant.id not in self._checked:
                self.bundle.check_files(self.variant)
                self._checked.add(self.variant.id)


@dataclass(frozen=True)
class OpenedGraphs:
    """Holds the encoder's and the decoder's session, opened elsewhere; it opens nothing."""

    bundle: Bundle
    variant: Variant
    backend: str
    sessions: Mapping[str, Session]
    threads: int | None = None
    has_stages: bool = False

    def open(self, *graphs: str) -> tuple[Session, ...]:
        """Return the sessions of that name."""
        return tuple(self.sessions[graph] for graph in graphs)

    def clip(self) -> Clip:
        """Raise `BundleError`."""
        self.bundle.clip_variant(self.variant.id)
        raise BundleError("this Sam was made without its CLIP; load it with sam_edge.load")

    def explain(self) -> list[Choice]:
        """Return nothing: no choice was made."""
        return []

    def on(self, device: str) -> OpenedGraphs:
        """Raise `DeviceError`."""
        raise DeviceError(
            f"this Sam was made from graphs opened elsewhere and cannot move to {device}; load it with "
            "sam_edge.load"
        )


def runs_without_fallback(variant: Variant, device: str) -> bool:
    """Tell whether the variant is made for an accelerator, and `device` must run it without fallback."""
    return forbids_fallback(variant) and device.casefold() not in ("auto", "cpu")


def open_graph(
    bundle: Bundle, variant: Variant, graph: str, backend: Backend, device: str, threads: int | None
) -> Session:
    """Open one of the variant's graphs by its path in the bundle; raises as `Backend.open`."""
    start = backend.open_without_fallback if runs_without_fallback(variant, device) else backend.open
    return start(bundle.path / graph, device, threads)


def _open_all(calls: list[partial[Session]], at_once: bool) -> tuple[Session, ...]:
    """Return what all calls open; where one fails, close the others' sessions."""
    opened: list[Session] = []

    def keep(call: Callable[[], Session]) -> Session:
        session = call()
        opened.append(session)
        return session

    kept = [partial(keep, call) for call in calls]
    try:
        return tuple(run_concurrently(kept) if at_once else [call() for call in kept])
    except BaseException:
        for session in opened:
            session.close()
        raise
