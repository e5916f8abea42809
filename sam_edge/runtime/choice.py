"""Choose the backend, device and variant to load, and explain the choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..axes import PRECISIONS
from ..backends import Backend, DeviceInfo, devices_of, find_backends, is_available
from ..bundle.bundle import Bundle
from ..bundle.variant import Variant
from ..errors import BundleError
from ..types import Choice
from .targets import meant_for, suited, target_of, unmet_requirement


@dataclass(frozen=True)
class Request:
    """The arguments of `load` that a choice depends on: each "auto", or a value that `load` takes."""

    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class Chosen:
    """A backend and the variant that it loads."""

    backend: Backend
    variant: Variant


def choose(bundle: Bundle, request: Request) -> Chosen:
    """Return the first backend that is installed, has the device and reads a variant of that precision.

    A variant whose requirements the CPU does not meet is passed over for another of that backend that is made
    for the same devices. Where there is none it is chosen, and loading it is refused: neither a variant for a
    chip nor another backend, which may be a simulator, silently takes its place.

    Where there is no such backend, return the one whose `open` raises an error that says what is missing.

    Raises:
        BundleError: the bundle has no such variant.
        BackendError: no such backend.
    """
    backends = []
    for backend in find_backends(request.backend):
        backends.append(backend)
        best = _best_variant(bundle, backend, request) if is_available(backend, request.device) else None
        if best is not None:
            return Chosen(backend, best)
    usable = [b for b in backends if is_available(b, request.device)]
    usable = usable or [b for b in backends if is_available(b)] or backends[:1]
    for backend in usable:
        best = _best_variant(bundle, backend, request)
        if best is not None:
            return Chosen(backend, best)
    formats = tuple(name for backend in usable for name in backend.formats)
    return Chosen(usable[0], bundle.choose(formats, request.precision))


def explain_choice(bundle: Bundle, request: Request, chosen: Chosen | None = None) -> list[Choice]:
    """Say why each backend, device and variant is chosen or not, the preferred first.

    Args:
        bundle: what is to be loaded.
        request: what was asked for.
        chosen: what was loaded; None for what would be.

    Raises:
        BackendError: no such backend.
    """
    refused = None
    if chosen is None:
        try:
            chosen = choose(bundle, request)
            refused = _unmet(chosen, request.device)
        except BundleError:
            chosen = None
    found: list[Choice] = []
    for backend in find_backends(request.backend):
        found += _explain_backend(bundle, request, backend, chosen, refused)
    return found


def used_device(backend: Backend, device: str) -> DeviceInfo | None:
    """Return the device that the backend's `open` uses; "auto" is a CPU where there is one."""
    return _used_device(devices_of(backend), device)


def _unmet(chosen: Chosen, device: str) -> str | None:
    """Say what the variant requires and the device, if it is a CPU, does not have; else None."""
    variant = chosen.variant
    return unmet_requirement(variant, used_device(chosen.backend, device)) if variant.requires else None


def _explain_backend(
    bundle: Bundle, request: Request, backend: Backend, chosen: Chosen | None, refused: str | None
) -> Iterator[Choice]:
    """Yield the devices of one backend and the variants that it does not load; `refused` says why none is
    loaded."""
    devices = devices_of(backend)
    best = _best_variant(bundle, backend, request)
    is_chosen = chosen is not None and chosen.backend.name == backend.name
    used = _used_device(devices, request.device)
    for one in devices:
        reason = ""
        if not one.available:
            reason = one.reason
        elif best is None:
            of = "" if request.precision == "auto" else f" of precision {request.precision}"
            reason = f"the bundle has no {' or '.join(backend.formats)} variant{of}"
        elif one is not used:
            reason = _why_not_device(one, used, request.device)
        elif chosen is not None and not is_chosen:
            reason = f"{chosen.backend.name} comes first"
        elif chosen is not None and refused is not None:
            reason = f"{chosen.variant.id} {refused}"
        if not reason and chosen is not None:
            yield Choice(backend.name, one.kind, one.name, chosen.variant.id, True, "chosen")
        else:
            yield Choice(backend.name, one.kind, one.name, None, False, reason)
    if is_chosen and chosen is not None and used is not None:
        for variant in bundle.manifest.variants:
            if variant.format in backend.formats and variant.id != chosen.variant.id:
                reason = _why_not_variant(variant, chosen.variant, request.precision, used)
                yield Choice(backend.name, used.kind, used.name, variant.id, False, reason)


def _used_device(devices: list[DeviceInfo], device: str) -> DeviceInfo | None:
    matching = [one for one in devices if one.available and one.matches(device)]
    if device.casefold() == "auto":
        matching.sort(key=lambda one: one.kind != "cpu")
    return matching[0] if matching else None


def _why_not_device(one: DeviceInfo, used: DeviceInfo | None, device: str) -> str:
    if used is None or not one.matches(device):
        return f"{device} was asked for"
    if device.casefold() == "auto" and one.kind != used.kind:
        return f"auto is the {used.kind}; ask for --device {one.kind}"
    return f"{used.name} comes first; ask for --device {one.name}"


def _why_not_variant(variant: Variant, chosen: Variant, precision: str, device: DeviceInfo) -> str:
    if precision != "auto" and variant.precision != precision:
        return f"{precision} was asked for"
    unmet = unmet_requirement(variant, device)
    if unmet is not None:
        return unmet
    if variant.target != chosen.target:
        if chosen.target is not None and chosen.target == target_of(device):
            return f"{chosen.id} is made for this device"
        return f"made for {variant.target or 'other devices'}"
    if PRECISIONS.get(variant.precision).rank > PRECISIONS.get(chosen.precision).rank:
        return f"less exact than {chosen.id}"
    return f"{chosen.id} was asked for"


def _best_variant(bundle: Bundle, backend: Backend, request: Request) -> Variant | None:
    precisions = PRECISIONS.names() if request.precision == "auto" else (request.precision,)
    found = [v for v in bundle.manifest.variants if v.format in backend.formats and v.precision in precisions]
    if any(variant.target or variant.requires for variant in found):
        device = used_device(backend, request.device)
        found = suited(meant_for(found, device), device)
    return next((v for p in precisions for v in found if v.precision == p), None)
