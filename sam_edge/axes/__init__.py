"""What the variants of a bundle differ in: format, precision and target; each entry is a file of its own.

`FORMATS`, `PRECISIONS` and `TARGETS` hold what the runtime needs to know of them. The exporter has how each
is written: `sam_edge.export.formats`, `sam_edge.export.quantize` and `sam_edge.export.targets`.
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
    """What the masks of a variant of that precision must reach, made for `target` where that is given.

    Raises:
        SamEdgeError: an unknown name.
    """
    usual = PRECISIONS.get(precision).gate
    return usual if target is None else TARGETS.get(target).gates.get(precision, usual)
