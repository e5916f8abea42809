"""From low-resolution logits to masks at the original image's size, in NumPy only."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ROWS = 64


def bilinear(old: int, new: int) -> NDArray[np.float64]:
    """(new, old) matrix of bilinear interpolation with half-pixel centres (align_corners=False)."""
    at = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    low = np.minimum(at.astype(np.intp), old - 1)
    high = np.minimum(low + 1, old - 1)
    weight = at - low
    matrix = np.zeros((new, old))
    rows = np.arange(new)
    np.add.at(matrix, (rows, low), 1 - weight)
    np.add.at(matrix, (rows, high), weight)
    return matrix


@lru_cache(maxsize=32)
def _axis(low_res: int, padded: int, resized: int, original: int) -> NDArray[np.float32]:
    """Up to the padded input, crop the padding, on to the original: one (original, low_res) matrix."""
    up = bilinear(low_res, padded)[:resized]
    return (bilinear(resized, original) @ up).astype(np.float32)


def upscale(
    low_res_logits: NDArray[np.float32],
    input_size: tuple[int, int],
    resized_size: tuple[int, int],
    original_size: tuple[int, int],
) -> NDArray[np.float32]:
    """Logits (N, M, h, w) -> (N, M, H, W), as the published predictor does.

    The same as two bilinear interpolations (to the encoder's input, then, without its padding, to
    the original image); both are linear along each axis, so they are two matrix products. All sizes
    are (height, width).
    """
    h, w = low_res_logits.shape[2:]
    rows = _axis(h, input_size[0], resized_size[0], original_size[0])
    columns = _axis(w, input_size[1], resized_size[1], original_size[1])
    wide = low_res_logits.astype(np.float32) @ columns.T
    logits = np.empty((*wide.shape[:2], *original_size), np.float32)
    # A few output rows depend on a few input rows only; the rest of the matrix is zero.
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        used = np.flatnonzero(block.any(axis=0))
        first, last = used[0], used[-1] + 1
        np.matmul(block[:, first:last], wide[..., first:last, :], out=logits[..., start : start + _ROWS, :])
    return logits
