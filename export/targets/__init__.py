"""The exporter's targets, one module each, registered as `TARGET`."""

from __future__ import annotations

from sam_edge import axes

from .base import Target


class TargetRegistry(axes.Registry[Target]):
    """The exporter's targets; one that is added is made known to the runtime, too."""

    def add(self, entry: Target) -> Target:
        """Add a target of another package.

        Raises:
            SamEdgeError: the name is taken.
        """
        super().add(entry)
        if entry.name not in axes.TARGETS:
            axes.TARGETS.add(entry.info)
        return entry

    def remove(self, name: str) -> None:
        """Remove what was added under that name, if anything was."""
        super().remove(name)
        axes.TARGETS.remove(name)


TARGETS = TargetRegistry("target", __name__, "TARGET")
