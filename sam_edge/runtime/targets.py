"""What variants are made for, and which variants are meant for which device.

A variant with a `target` is for a chip's devices, or for browsers: elsewhere its graphs give the same masks,
but there the bundle's other variants are meant.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..backends import DeviceInfo
from ..bundle.variant import Variant

HEXAGON = "hexagon"
WEB = "web"
# The start of its devices' names, as backends list them -> the target.
_DEVICES = {"QNNExecutionProvider": HEXAGON}


def target_of(device: DeviceInfo | None) -> str | None:
    """The target that the device is one of, if any."""
    names = () if device is None else (t for name, t in _DEVICES.items() if device.name.startswith(name))
    return next(iter(names), None)


def meant_for(variants: Sequence[Variant], device: DeviceInfo | None) -> list[Variant]:
    """Those of `variants` that are made for the device: all of them where none is."""
    target = target_of(device)
    return [one for one in variants if one.target == target] or list(variants)
