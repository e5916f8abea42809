"""Which operations of a Core ML program stay in FP32 where the rest is FP16.

Norms, linear attention and the Fourier positions of prompts: nothing warns of an activation that overflows.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

SMALLEST_FP16 = 2.0**-24
_NORM = "norm: the squares of values beyond 255 overflow FP16"
_ATTENTION = (
    "linear attention: sums over all tokens overflow FP16, and the lower bound of the divisor underflows"
)
_ANGLE = "Fourier positions: coordinates and angles in FP16 move a point by a fraction of a pixel"


class Fp32Ops:
    """The MIL operations that stay in FP32, noted while coremltools asks about each."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, str]] = {}

    def allows_fp16(self, op: Any) -> bool:
        """Whether a MIL operation may run in FP16; one that may not is noted."""
        reason = _reason(op)
        if reason is not None:
            self._kept[op.name] = (op.op_type, reason)
        return reason is None

    def summary(self) -> list[str]:
        """One line a reason: which kinds of operation, and how many of each."""
        lines = []
        for reason in sorted({reason for _, reason in self._kept.values()}):
            counts = Counter(kind for kind, why in self._kept.values() if why == reason)
            kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
            lines.append(f"{kinds}: {reason}")
        return lines


def _reason(op: Any) -> str | None:
    """Why this MIL operation stays in FP32; None if FP16 does."""
    if op.op_type == "layer_norm":
        return _NORM
    if _is_norm_piece(op):
        return _NORM
    if _reaches_bound(op):
        return _ATTENTION
    if _reaches_angle(op):
        return _ANGLE
    return None


def _producer(var: Any) -> Any:
    """The operation that `var` comes from, casts aside; None for an input or a plain value."""
    op = getattr(var, "op", None)
    while op is not None and op.op_type == "cast":
        op = op.x.op
    return op


def _made_by(var: Any, kinds: tuple[str, ...]) -> bool:
    """Whether `var` comes from such an operation, casts aside."""
    op = _producer(var)
    return op is not None and op.op_type in kinds


def _is_norm_piece(op: Any) -> bool:
    """A part of LayerNorm2d: mean, centred, its square, mean of those, + epsilon, root, quotient."""
    kind = op.op_type
    if kind in ("reduce_mean", "sqrt"):
        return True
    if kind == "mul":
        return op.x is op.y
    if kind in ("sub", "add"):
        return _made_by(op.x, ("reduce_mean",)) or _made_by(op.y, ("reduce_mean",))
    return kind == "real_div" and _made_by(op.y, ("sqrt",))


def _reaches_bound(op: Any) -> bool:
    """A division by what is at least a number that FP16 takes for 0, or a step on the way to one."""
    pending = [op]
    while pending:
        current = pending.pop()
        if current.op_type == "real_div" and _made_by(current.y, ("maximum",)):
            lowest = _producer(current.y).y.val
            return lowest is not None and bool(0 < np.max(lowest) < SMALLEST_FP16)
        if current.op_type in _BEFORE_BOUND:
            pending += [child for out in current.outputs for child in out.child_ops]
    return False


_BEFORE_BOUND = frozenset({"matmul", "reduce_sum", "maximum", "cast"})


def _reaches_angle(op: Any) -> bool:
    """A sine or cosine, or a step on the way from the point coordinates to one."""
    pending, seen = [op], set()
    while pending:
        current = pending.pop()
        if current.op_type in ("sin", "cos"):
            return True
        if current.op_type in _BEFORE_ANGLE and current.name not in seen:
            seen.add(current.name)
            pending += [child for out in current.outputs for child in out.child_ops]
    return False


# Nothing else stands between a coordinate and its angle; a longer way would be searched in vain.
_BEFORE_ANGLE = frozenset({"add", "sub", "mul", "real_div", "matmul", "linear", "cast", "reshape"})
