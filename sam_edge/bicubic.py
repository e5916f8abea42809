"""Pillow's antialiased bicubic resizing, which CLIP was trained with, in NumPy only."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_PRECISION_BITS = 32 - 8 - 2
# Pillow's: Keys' cubic convolution with a = -0.5.
_A, _SUPPORT = -0.5, 2.0


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@lru_cache(maxsize=64)
def _taps(old: int, new: int, start: int, stop: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Source indices and fixed-point weights (stop - start, taps) of new rows, after Pillow's Resample.c."""
    scale = old / new
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    taps = math.ceil(support) * 2 + 1
    centre = (np.arange(start, stop) + 0.5) * scale
    first = np.maximum(0, (centre - support + 0.5).astype(np.intp))
    last = np.minimum(old, (centre + support + 0.5).astype(np.intp))
    indices = first[:, None] + np.arange(taps)
    inside = indices < last[:, None]
    weights = _cubic((indices - centre[:, None] + 0.5) * (1.0 / stretch)) * inside
    weights /= weights.sum(1, keepdims=True)
    # To the nearest whole number, halves away from 0.
    whole = np.trunc(weights * (1 << _PRECISION_BITS) + np.copysign(0.5, weights)).astype(np.int32)
    return np.minimum(indices, old - 1), whole


def _resample_rows(image: NDArray[np.uint8], new: int, start: int, stop: int) -> NDArray[np.uint8]:
    indices, weights = _taps(image.shape[0], new, start, stop)
    total = np.full((stop - start, *image.shape[1:]), 1 << (_PRECISION_BITS - 1), np.int32)
    for index, weight in zip(indices.T, weights.T, strict=True):
        total += image[index] * weight.reshape(-1, *[1] * (image.ndim - 1))
    return np.clip(total >> _PRECISION_BITS, 0, 255).astype(np.uint8)


def resize_bicubic(
    image: NDArray[np.uint8], size: tuple[int, int], window: tuple[int, int, int, int] | None = None
) -> NDArray[np.uint8]:
    """Resize (H, W, C) uint8 to `size` (height, width) as Pillow's BICUBIC does, to within one level.

    Columns first, then rows, as `resize_bilinear`. With a `window` (top, left, height, width) of the result,
    only that part of it is made.
    """
    top, left, rows, columns = window or (0, 0, *size)
    height, width = size
    if (image.shape[1], 0, width) != (width, left, columns):
        turned = np.ascontiguousarray(image.swapaxes(0, 1))
        image = _resample_rows(turned, width, left, left + columns).swapaxes(0, 1)
    if (image.shape[0], 0, height) != (height, top, rows):
        image = _resample_rows(np.ascontiguousarray(image), height, top, top + rows)
    return image
