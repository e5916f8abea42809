"""Pillow's antialiased resizing, which SAM and CLIP were trained with, in NumPy only.

Pillow sums products of 8-bit pixels and 22-bit weights; float64 holds these sums exactly, so each axis is a
matmul with a banded matrix, done band by band: a few outputs depend on a few inputs only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..system.threads import split_across_threads
from .postprocess import ONE_THREAD

Floats = NDArray[np.floating]

_PRECISION_BITS = 32 - 8 - 2
# Input rows per block, so that a block stays in the processor's cache.
_ROWS = 128


@dataclass(frozen=True)
class _Filter:
    """A kernel, 0 beyond `support`. `overshoots`: it has negative weights, so results may exceed 0 to 255."""

    kernel: Callable[[Floats], Floats]
    support: float
    overshoots: bool


def _triangle(x: Floats) -> Floats:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: Floats) -> Floats:
    """Keys' cubic convolution, with Pillow's a = -0.5."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_BILINEAR, _BICUBIC = _Filter(_triangle, 1.0, False), _Filter(_cubic, 2.0, True)


@dataclass(frozen=True)
class _Band:
    """Outputs [start, stop) are inputs [first, last) @ `weights` (inputs, outputs).

    Indices count interleaved channel values; each output has weights only for inputs of its own channel.
    """

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.floating]


def _taps(kind: _Filter, old: int, new: int, start: int, stop: int) -> tuple[NDArray[np.int64], Floats]:
    """Return, for outputs `start` to `stop`, the first source index (n,) and fixed-point weights (n, k).

    As `precompute_coeffs` and `normalize_coeffs_8bpc` in Pillow's Resample.c.
    """
    scale = old / new
    stretch = max(scale, 1.0)
    support = kind.support * stretch
    centres = (np.arange(start, stop) + 0.5) * scale
    first = np.maximum(0, (centres - support + 0.5).astype(np.int64))
    last = np.minimum(old, (centres + support + 0.5).astype(np.int64))
    # In the order of the C code, so that rounded weights are identical to the last bit.
    sources = first[:, None] + np.arange((last - first).max())
    weights = kind.kernel((sources - centres[:, None] + 0.5) * (1.0 / stretch))
    weights[sources >= last[:, None]] = 0
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    # Round to nearest, halves away from 0.
    return first, np.trunc(weights * (1 << _PRECISION_BITS) + np.copysign(0.5, weights))


@lru_cache(maxsize=64)
def _bands(kind: _Filter, old: int, new: int, start: int, stop: int, channels: int) -> list[_Band]:
    """Return one axis in bands: outputs `start` to `stop` of `new`, from `old` pixels of `channels`."""
    # Outputs of one band share most of their inputs.
    width = max(2, min(16, round(16 * new / old)))
    firsts, weights = _taps(kind, old, new, start, stop)
    weights /= 1 << _PRECISION_BITS
    count, outputs = weights.shape[1], np.arange(stop - start)
    lows = outputs[::width]
    # First indices ascend, so a band's inputs begin at its first output's and end at its last one's.
    begins, ends = firsts[lows], firsts[np.minimum(lows + width, stop - start) - 1] + count
    matrices = np.zeros((len(lows), (ends - begins).max(), channels, width, channels))
    band, column = np.divmod(outputs, width)
    row = firsts - begins[band] + np.arange(count)[:, None]
    for channel in range(channels):
        matrices[band, row, channel, column, channel] = weights.T
    # Sources beyond the image, of the last outputs, have weight 0 and are dropped.
    ends = np.minimum(ends, old)
    bands = []
    for low, first, last, matrix in zip(lows.tolist(), begins.tolist(), ends.tolist(), matrices, strict=True):
        size = min(width, stop - start - low)
        inside = matrix[: last - first, :, :size].reshape(channels * (last - first), channels * size)
        edges = (channels * low, channels * (low + size), channels * first, channels * last)
        bands.append(_Band(*edges, inside))
    return bands


def _round_half_up(sums: Floats, kind: _Filter) -> Floats:
    """Add 0.5 in place, so that conversion to uint8 rounds half up as Pillow does; clip if needed."""
    sums += 0.5
    return np.clip(sums, 0, 255, out=sums) if kind.overshoots else sums


def _resize(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    kind: _Filter,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Resize columns, then rows, as Pillow did for long; recent releases sometimes resize rows first."""
    (height, width), (top, left, rows, columns) = size, window
    old_height, old_width, channels = image.shape
    flat = image.reshape(old_height, -1)
    if (old_width, 0, width) != (width, left, columns):
        flat = _resize_columns(
            flat, _bands(kind, old_width, width, left, left + columns, channels), kind, threads
        )
    if (old_height, 0, height) != (height, top, rows):
        flat = _resize_rows(flat, _bands(kind, old_height, height, top, top + rows, 1), kind, threads)
    return flat.reshape(rows, columns, channels)


def _resize_columns(
    flat: NDArray[np.uint8], bands: list[_Band], kind: _Filter, threads: int
) -> NDArray[np.uint8]:
    """(H, old) -> (H, new)."""
    wide = np.empty((len(flat), bands[-1].stop), np.uint8)
    step = min(_ROWS, max(1, ONE_THREAD // max(band.weights.size for band in bands)))

    def work(lows: Sequence[int]) -> None:
        # Allocated once: the system maps large arrays page by page.
        floats, buffer = np.empty((step, flat.shape[1])), np.empty((step, wide.shape[1]))
        for low in lows:
            block = flat[low : low + step]
            part, sums = floats[: len(block)], buffer[: len(block)]
            part[...] = block
            for c in bands:
                np.matmul(part[:, c.first : c.last], c.weights, out=sums[:, c.start : c.stop])
            wide[low : low + step] = _round_half_up(sums, kind)

    split_across_threads(work, range(0, len(flat), step), threads)
    return wide


def _resize_rows(
    flat: NDArray[np.uint8], bands: list[_Band], kind: _Filter, threads: int
) -> NDArray[np.uint8]:
    """(old, W) -> (new, W)."""
    tall = np.empty((bands[-1].stop, flat.shape[1]), np.uint8)

    def work(bands: Sequence[_Band]) -> None:
        for r in bands:
            step = max(1, ONE_THREAD // r.weights.size)
            for low in range(0, flat.shape[1], step):
                part = slice(low, low + step)
                product = r.weights.T @ flat[r.first : r.last, part].astype(np.float64)
                tall[r.start : r.stop, part] = _round_half_up(product, kind)

    split_across_threads(work, bands, threads)
    return tall


def resize_bilinear(image: NDArray[np.uint8], size: tuple[int, int], threads: int = 1) -> NDArray[np.uint8]:
    """Resize an image as Pillow's BILINEAR filter does, antialiased.

    Identical to Pillow where it resizes columns first; within one level where it resizes rows first.

    Args:
        image: (H, W, C) uint8.
        size: (height, width) of the result.
        threads: how many to use; the result is the same.

    Returns:
        (height, width, C) uint8.
    """
    return _resize(image, size, (0, 0, *size), _BILINEAR, threads)


def resize_bicubic(
    image: NDArray[np.uint8], size: tuple[int, int], window: tuple[int, int, int, int] | None = None
) -> NDArray[np.uint8]:
    """Resize an image as Pillow's BICUBIC filter does, antialiased; exact as `resize_bilinear`.

    Args:
        image: (H, W, C) uint8.
        size: (height, width) of the whole result.
        window: (top, left, height, width) of the part of the result to compute; all of it if None.

    Returns:
        (height, width, C) uint8, of the window if there is one.
    """
    return _resize(image, size, window or (0, 0, *size), _BICUBIC)
