"""CPUs on which weights of 8 bits do not overflow: ordinary variants with slightly better INT8 masks."""

from __future__ import annotations

from collections.abc import Iterator

from sam_edge import axes
from sam_edge.system.cpu import this_cpu

from ..context.options import Options
from .base import Target


class VnniTarget(Target):
    """Weights of 8 bits."""

    info = axes.TARGETS.get("vnni")
    full_range = True

    def warnings(self, options: Options) -> Iterator[str]:
        """Parity is measured on this CPU, which may be without VNNI."""
        if not any(axes.PRECISIONS.get(one).calibrated for one in options.precisions):
            return
        cpu = this_cpu()
        for requirement in self.info.requires:
            if requirement.architecture == cpu.architecture and cpu.has_any(requirement.any_of) is False:
                yield (
                    f"--target {self.name} requires {requirement}, which this CPU does not have: the parity "
                    "measured here is worse than on CPUs that have it, more is kept in float, and this "
                    "machine will refuse to load these variants"
                )


TARGET = VnniTarget()
