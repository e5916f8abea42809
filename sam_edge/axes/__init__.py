"""Formats, precisions and targets: what the variants of a bundle differ in. Each entry has its own module.

`FORMATS`, `PRECISIONS` and `TARGETS` are the runtime's registries. The code that writes variants is in
`sam_edge.export.formats`, `sam_edge.export.quantize` and `sam_edge.export.targets`.
"""

from __future__ import annotations

from .base import AXES, Axis, Format, Gate, Precision, Requirement, Target
from .registry import Registry

__all__ = [
    "AXES",
    "FORMATS",
    "PRECISIONS",
    "TARGETS",
    "Axis",
    "Format",
    "Gate",
    "Precision",
    "Registry",
    "Requirement",
    "Target",
]

FORMATS: Registry[Format] = Registry("format", f"{__name__}.formats", "FORMAT")
PRECISIONS: Registry[Precision] = Registry("precision", f"{__name__}.precisions", "PRECISION")
TARGETS: Registry[Target] = Registry("target", f"{__name__}.targets", "TARGET")


def gate(precision: str, target: str | None = None) -> Gate:
    """Return the gate of a precision: the IoU that masks must reach, for `target` if that is given.

    Raises:
        SamEdgeError: an unknown name.
    """
    usual = PRECISIONS.get(precision).gate
    return usual if target is None else TARGETS.get(target).gates.get(precision, usual)
