"""Any CPU: the ordinary variants."""

from sam_edge import axes

from .base import Target


class AnyTarget(Target):
    """Weights of 7 bits, which overflow on no CPU."""

    info = axes.TARGETS.get("any")


TARGET = AnyTarget()
