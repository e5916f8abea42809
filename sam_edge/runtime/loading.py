"""From a bundle to a `Sam`: which backend, device and variant, and why."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..axes import PRECISIONS
from ..backends import Backend, DeviceInfo, Session, devices_of, find_backends, is_available
from ..backends.compile_cache import CompileCache, graph_id
from ..bundle.bundle import Bundle, open_bundle
from ..bundle.variant import STAGES, ClipVariant, Variant
from ..errors import BackendError, BundleError
from ..system.threads import run_concurrently
from ..types import Choice
from .sam import Sam
from .targets import check_machine, forbids_fallback, meant_for, suited, unmet_requirement

if TYPE_CHECKING:
    from .clip import Clip

CACHE_VARIABLE = "SAM_EDGE_CACHE"


@dataclass(frozen=True)
class Wanted:
    """What was asked for: each "auto", or one of what `load` takes."""

    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"


def load(
    path: str | Path,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    check_integrity: bool = True,
    explain: bool = False,
    cache_dir: str | Path | None = None,
) -> Sam:
    """Load a bundle made by `sam-edge export`.

    Args:
        path: the bundle's directory.
        backend: "auto" or a name from `sam-edge devices`.
        device: "cpu", "gpu", "npu", "auto" (a CPU), or a device's name from `sam-edge devices`; never another
            than asked for.
        precision: "fp32", "fp16", "bf16", "int8", or "auto" for the most exact one there is; variants whose
            requirements this CPU does not meet are passed over where there are others.
        threads: threads within one operator; None leaves it to the backend.
        check_integrity: compare every file with its sha256 before it is read. Graphs that ONNX Runtime has in
            `cache_dir`, where an entry is of that sha256, are not read.
        explain: print to stderr why each backend, device and variant was taken or not, a line each;
            `Sam.choices` has the same.
        cache_dir: a directory where backends keep what they compiled, so that the next process starts sooner;
            None for the environment's SAM_EDGE_CACHE, or, without it, for no such directory.

    Raises:
        BundleError, IntegrityError: not a bundle, or not as exported; with a cache, everything-mode may raise
            it, too.
        BackendError, DeviceError: no such runtime or device here, or a CPU without what the variant requires
            to give the masks that it was exported with.
        OutputError: `cache_dir` is not a directory and cannot be made one.
    """
    bundle = open_bundle(path)
    wanted = Wanted(backend, device, precision)
    if explain:
        for choice in explain_choice(bundle, wanted):
            print(choice, file=sys.stderr)
    chosen, variant = choose(bundle, wanted)
    if variant.requires:
        check_machine(bundle, variant, _used(devices_of(chosen), device))
    if cache_dir is None:
        cache_dir = os.environ.get(CACHE_VARIABLE) or None
    return _load(bundle, variant, chosen, wanted, threads, check_integrity, cache_dir)


def load_variant(
    bundle: Bundle,
    variant: Variant,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    cache_dir: str | Path | None = None,
) -> Sam:
    """Load this very variant, its files unchecked; arguments and errors as in `load`.

    Without `cache_dir` there is none, whatever the environment says.

    Raises:
        BackendError: also where the backend does not read the variant's format.
    """
    chosen = next((b for b in find_backends(backend) if variant.format in b.formats), None)
    if chosen is None:
        raise BackendError(
            f"{backend} does not read {variant.id}; leave the choice of backend, or load another"
        )
    return _load(bundle, variant, chosen, Wanted(backend, device), threads, False, cache_dir)


def _load(
    bundle: Bundle,
    variant: Variant,
    backend: Backend,
    wanted: Wanted,
    threads: int | None,
    checked: bool,
    cache_dir: str | Path | None,
) -> Sam:
    if threads is not None and threads < 1:
        raise BackendError(f"threads is {threads}; expected 1 or more, or none for the backend's choice")

    lock, unchecked = threading.Lock(), [variant] if checked else []

    def check() -> None:
        with lock:
            if unchecked:
                bundle.check_files(variant)
                unchecked.clear()

    def opened(entry: Variant | ClipVariant, graph: str, checked: bool = checked) -> Session:
        cached = cache_dir is not None and not is_whole(variant, wanted.device)
        if not (cached and backend.defers_file_check):
            check()
        if cache_dir is None or not cached:
            return open_graph(bundle, variant, entry.graphs[graph].path, backend, wanted.device, threads)
        path = bundle.path / entry.graphs[graph].path
        cache = CompileCache(Path(cache_dir), graph_id(bundle.path, entry, graph, checked), check)
        return backend.open_cached(path, wanted.device, threads, cache)

    def opened_clip() -> Clip:
        from .clip import open_clip

        return open_clip(bundle, variant.id, partial(opened, checked=True))

    def both(*graphs: str) -> tuple[Session, Session]:
        first, second = (partial(opened, variant, graph) for graph in graphs)
        return _both(first, second, backend.concurrent_open)

    encoder, decoder = both("encoder", "decoder")
    explained = partial(explain_choice, bundle, wanted, (backend, variant))
    stages = partial(both, *STAGES) if backend.has_stages and variant.scorer is not None else None
    return Sam(bundle, variant, backend.name, encoder, decoder, explained, opened_clip, threads, stages)


def _both(
    first: Callable[[], Session], second: Callable[[], Session], at_once: bool
) -> tuple[Session, Session]:
    """What both make, at once where they may; where one fails, the other's session is closed."""
    made: list[Session] = []

    def kept(one: Callable[[], Session]) -> Session:
        session = one()
        made.append(session)
        return session

    calls = partial(kept, first), partial(kept, second)
    try:
        one, other = run_concurrently(calls) if at_once else [call() for call in calls]
    except BaseException:
        for session in made:
            session.close()
        raise
    return one, other


def is_whole(variant: Variant, device: str) -> bool:
    """Whether the variant is made for a chip that is no CPU, which `device` is then to take whole."""
    return forbids_fallback(variant) and device.casefold() not in ("auto", "cpu")


def open_graph(
    bundle: Bundle, variant: Variant, graph: str, backend: Backend, device: str, threads: int | None
) -> Session:
    """Open one of the variant's graphs, whose path is in the bundle; errors as those of `Backend.open`."""
    start = backend.open_without_fallback if is_whole(variant, device) else backend.open
    return start(bundle.path / graph, device, threads)


def choose(bundle: Bundle, wanted: Wanted) -> tuple[Backend, Variant]:
    """The first backend that is here, has the device and reads a variant of that precision; and the variant.

    Where there is none, the one whose `open` will say what is missing.

    Raises:
        BundleError: the bundle has no such variant.
        BackendError: no such backend.
    """
    backends = []
    for backend in find_backends(wanted.backend):
        backends.append(backend)
        best = _best(bundle, backend, wanted) if is_available(backend, wanted.device) else None
        if best is not None and _unmet(best, backend, wanted.device) is None:
            return backend, best
    usable = [b for b in backends if is_available(b, wanted.device)]
    usable = usable or [b for b in backends if is_available(b)] or backends[:1]
    for backend in usable:
        best = _best(bundle, backend, wanted)
        if best is not None:
            return backend, best
    return usable[0], bundle.choose(tuple(f for b in usable for f in b.formats), wanted.precision)


def explain_choice(
    bundle: Bundle, wanted: Wanted, taken: tuple[Backend, Variant] | None = None
) -> list[Choice]:
    """Why each backend, device and variant is taken or not, in the order in which they are preferred.

    Args:
        bundle: what is to be loaded.
        wanted: what was asked for.
        taken: what was loaded; None for what would be.

    Raises:
        BackendError: no such backend.
    """
    refused = None
    if taken is None:
        try:
            taken = choose(bundle, wanted)
            refused = _unmet(taken[1], taken[0], wanted.device)
        except BundleError:
            taken = None
    backends = find_backends(wanted.backend)
    return [row for backend in backends for row in _rows(bundle, wanted, backend, taken, refused)]


def _unmet(variant: Variant, backend: Backend, device: str) -> str | None:
    """What the variant requires and the device, if it is a CPU, does not have."""
    return unmet_requirement(variant, _used(devices_of(backend), device)) if variant.requires else None


def _rows(
    bundle: Bundle,
    wanted: Wanted,
    backend: Backend,
    taken: tuple[Backend, Variant] | None,
    refused: str | None,
) -> Iterator[Choice]:
    """The devices of one backend, and the variants that it does not take; `refused` is why none is loaded."""
    devices = devices_of(backend)
    best = _best(bundle, backend, wanted)
    is_taken = taken is not None and taken[0].name == backend.name
    used = _used(devices, wanted.device)
    for one in devices:
        reason = ""
        if not one.available:
            reason = one.reason
        elif best is None:
            of = "" if wanted.precision == "auto" else f" of precision {wanted.precision}"
            reason = f"the bundle has no {' or '.join(backend.formats)} variant{of}"
        elif one is not used:
            reason = _passed_over(one, used, wanted.device)
        elif taken is not None and not is_taken:
            reason = f"{taken[0].name} comes first"
        elif taken is not None and refused is not None:
            reason = f"{taken[1].id} {refused}"
        if not reason and taken is not None:
            yield Choice(backend.name, one.kind, one.name, taken[1].id, True, "chosen")
        else:
            yield Choice(backend.name, one.kind, one.name, None, False, reason)
    if is_taken and taken is not None and used is not None:
        for variant in bundle.manifest.variants:
            if variant.format in backend.formats and variant.id != taken[1].id:
                unmet = unmet_requirement(variant, used)
                reason = _not_this_variant(variant, taken[1], wanted.precision, unmet)
                yield Choice(backend.name, used.kind, used.name, variant.id, False, reason)


def _used(devices: list[DeviceInfo], device: str) -> DeviceInfo | None:
    """The device that `open` takes; "auto" is a CPU where there is one."""
    meant = [one for one in devices if one.available and one.matches(device)]
    if device.casefold() == "auto":
        meant.sort(key=lambda one: one.kind != "cpu")
    return meant[0] if meant else None


def _passed_over(one: DeviceInfo, used: DeviceInfo | None, device: str) -> str:
    if used is None or not one.matches(device):
        return f"{device} was asked for"
    if device.casefold() == "auto" and one.kind != used.kind:
        return f"auto is the {used.kind}; ask for --device {one.kind}"
    return f"{used.name} comes first; ask for --device {one.name}"


def _not_this_variant(variant: Variant, taken: Variant, precision: str, unmet: str | None) -> str:
    if precision != "auto" and variant.precision != precision:
        return f"{precision} was asked for"
    if unmet is not None:
        return unmet
    if variant.target != taken.target:
        return f"{taken.id} is made for this device" if taken.target else f"made for {variant.target}"
    if PRECISIONS.get(variant.precision).rank > PRECISIONS.get(taken.precision).rank:
        return f"less exact than {taken.id}"
    return f"{taken.id} was asked for"


def _best(bundle: Bundle, backend: Backend, wanted: Wanted) -> Variant | None:
    precisions = PRECISIONS.names() if wanted.precision == "auto" else (wanted.precision,)
    there = [v for v in bundle.manifest.variants if v.format in backend.formats and v.precision in precisions]
    if any(variant.target or variant.requires for variant in there):
        device = _used(devices_of(backend), wanted.device)
        there = meant_for(suited(there, device), device)
    return next((v for p in precisions for v in there if v.precision == p), None)
