"""Agreement of two masks: IoU and boundary IoU. NumPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union (Jaccard index) of two masks.

        iou(masks.best()[0], reference)  # 0.0 to 1.0

    Args:
        a: (H, W) bool.
        b: (H, W) bool.

    Returns:
        0 to 1; 1 where both masks are empty.
    """
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def boundary_iou(a: Mask, b: Mask, dilation_ratio: float = 0.02) -> float:
    """Boundary IoU of two masks (Cheng et al. 2021, "Boundary IoU", https://arxiv.org/abs/2103.16562).

    The IoU of the parts of the masks that are close to their own contour: unlike the IoU it does not become
    less sensitive to errors at the contour as objects grow.

        boundary_iou(masks.best()[0], reference)  # 0.0 to 1.0

    Args:
        a: (H, W) bool.
        b: (H, W) bool.
        dilation_ratio: width of the boundary band, inside the mask, as a fraction of the image's diagonal, at
            least one pixel. The paper uses 0.02.

    Returns:
        0 to 1; 1 where both masks are empty.
    """
    width = max(1, round(dilation_ratio * float(np.hypot(*a.shape))))
    return iou(a & ~erode(a, width), b & ~erode(b, width))


def erode(mask: Mask, iterations: int) -> Mask:
    """Erode a mask with a 3 x 3 square; pixels outside the image count as background.

    As `cv2.erode` with that kernel and a constant border of 0, which the published boundary IoU uses.

    Args:
        mask: (H, W) bool.
        iterations: how often.

    Returns:
        (H, W) bool.
    """
    # That many erosions are one by a larger square, which is separable: a running sum along each axis.
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (iterations, iterations)
        padded = np.pad(mask, padding)
        sums = np.cumsum(padded, axis=axis, dtype=np.int32)
        sums = np.insert(sums, 0, 0, axis=axis)
        width = 2 * iterations + 1
        n = mask.shape[axis]
        upper, lower = np.arange(width, width + n), np.arange(n)
        mask = np.take(sums, upper, axis) - np.take(sums, lower, axis) == width
    return mask
