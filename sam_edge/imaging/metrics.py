"""How far two masks agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two (H, W) masks; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def eroded(mask: Mask, steps: int) -> Mask:
    """`steps` erosions by a 3 x 3 square, with nothing beyond the image: one by a larger square."""
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (steps, steps)
        padded = np.pad(mask, padding)
        sums = np.cumsum(padded, axis=axis, dtype=np.int32)
        sums = np.insert(sums, 0, 0, axis=axis)
        width = 2 * steps + 1
        n = mask.shape[axis]
        upper, lower = np.arange(width, width + n), np.arange(n)
        mask = np.take(sums, upper, axis) - np.take(sums, lower, axis) == width
    return mask


def boundary_iou(a: Mask, b: Mask, dilation_ratio: float = 0.02) -> float:
    """IoU of the inner boundary bands of two (H, W) masks (Cheng et al. 2021, "Boundary IoU").

    The band is `dilation_ratio` of the image diagonal wide.
    """
    steps = max(1, round(dilation_ratio * float(np.hypot(*a.shape))))
    return iou(a & ~eroded(a, steps), b & ~eroded(b, steps))
