"""Pillow's antialiased resizing, which SAM and CLIP were trained with, in NumPy only.

Pillow sums integers of 8 by 22 bits; float64 holds those sums exactly, so they are matrix products here, in
bands: a few outputs depend on a few inputs only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..system.threads import share
from .postprocess import ONE_THREAD

Floats = NDArray[np.floating]

_PRECISION_BITS = 32 - 8 - 2
# Input rows at a time: what is worked on stays in the processor's cache.
_ROWS = 128


@dataclass(frozen=True)
class _Filter:
    """A kernel, 0 beyond `support`; one that has negative weights can leave 0 to 255."""

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
    """Outputs [start, stop) are the inputs [first, last) times `weights` (inputs, outputs).

    Each value of a pixel counts: of interleaved ones, every output is of the inputs of its own channel.
    """

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.floating]


def _taps(kind: _Filter, old: int, new: int, start: int, stop: int) -> tuple[NDArray[np.int64], Floats]:
    """Of outputs `start` to `stop`: the first source index (n,) and fixed-point weights (n, k) from there on.

    After `precompute_coeffs` and `normalize_coeffs_8bpc` in Pillow's Resample.c.
    """
    scale = old / new
    stretch = max(scale, 1.0)
    support = kind.support * stretch
    centres = (np.arange(start, stop) + 0.5) * scale
    first = np.maximum(0, (centres - support + 0.5).astype(np.int64))
    last = np.minimum(old, (centres + support + 0.5).astype(np.int64))
    # Operation by operation as in C, so that the rounded weights are the same to the last bit.
    sources = first[:, None] + np.arange((last - first).max())
    weights = kind.kernel((sources - centres[:, None] + 0.5) * (1.0 / stretch))
    weights[sources >= last[:, None]] = 0
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    # To the nearest whole number, halves away from 0.
    return first, np.trunc(weights * (1 << _PRECISION_BITS) + np.copysign(0.5, weights))


@lru_cache(maxsize=64)
def _bands(kind: _Filter, old: int, new: int, start: int, stop: int, channels: int) -> list[_Band]:
    """One axis of `old` pixels of `channels` interleaved values: outputs `start` to `stop` of `new`."""
    # As many outputs in a band as share most of their inputs.
    width = max(2, min(16, round(16 * new / old)))
    firsts, weights = _taps(kind, old, new, start, stop)
    weights /= 1 << _PRECISION_BITS
    count, outputs = weights.shape[1], np.arange(stop - start)
    lows = outputs[::width]
    # They never fall, so that a band's inputs start with its first output's and end with its last one's.
    begins, ends = firsts[lows], firsts[np.minimum(lows + width, stop - start) - 1] + count
    matrices = np.zeros((len(lows), (ends - begins).max(), channels, width, channels))
    band, column = np.divmod(outputs, width)
    row = firsts - begins[band] + np.arange(count)[:, None]
    for channel in range(channels):
        matrices[band, row, channel, column, channel] = weights.T
    # Of the last outputs, sources beyond the image are left out: their weights are 0.
    ends = np.minimum(ends, old)
    bands = []
    for low, first, last, matrix in zip(lows.tolist(), begins.tolist(), ends.tolist(), matrices, strict=True):
        here = min(width, stop - start - low)
        inside = matrix[: last - first, :, :here].reshape(channels * (last - first), channels * here)
        edges = (channels * low, channels * (low + here), channels * first, channels * last)
        bands.append(_Band(*edges, inside))
    return bands


def _rounded(sums: Floats, kind: _Filter) -> Floats:
    """Ready to be cut off to whole numbers: half up, as Pillow's integers."""
    sums += 0.5
    return np.clip(sums, 0, 255, out=sums) if kind.overshoots else sums


def _resized(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    kind: _Filter,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Columns first, then rows, as the classic Pillow; recent releases sometimes take the rows first."""
    (height, width), (top, left, rows, columns) = size, window
    old_height, old_width, channels = image.shape
    flat = image.reshape(old_height, -1)
    if (old_width, 0, width) != (width, left, columns):
        flat = _resized_across(
            flat, _bands(kind, old_width, width, left, left + columns, channels), kind, threads
        )
    if (old_height, 0, height) != (height, top, rows):
        flat = _resized_down(flat, _bands(kind, old_height, height, top, top + rows, 1), kind, threads)
    return flat.reshape(rows, columns, channels)


def _resized_across(
    flat: NDArray[np.uint8], bands: list[_Band], kind: _Filter, threads: int
) -> NDArray[np.uint8]:
    """(H, old) -> (H, new): each row resized."""
    wide = np.empty((len(flat), bands[-1].stop), np.uint8)
    step = min(_ROWS, max(1, ONE_THREAD // max(band.weights.size for band in bands)))

    def some(lows: Sequence[int]) -> None:
        # Memory that is asked for once: a system hands out large arrays page by page.
        floats, buffer = np.empty((step, flat.shape[1])), np.empty((step, wide.shape[1]))
        for low in lows:
            rows_here = flat[low : low + step]
            part, sums = floats[: len(rows_here)], buffer[: len(rows_here)]
            part[...] = rows_here
            for c in bands:
                np.matmul(part[:, c.first : c.last], c.weights, out=sums[:, c.start : c.stop])
            wide[low : low + step] = _rounded(sums, kind)

    share(some, range(0, len(flat), step), threads)
    return wide


def _resized_down(
    flat: NDArray[np.uint8], bands: list[_Band], kind: _Filter, threads: int
) -> NDArray[np.uint8]:
    """(old, W) -> (new, W): each column resized."""
    tall = np.empty((bands[-1].stop, flat.shape[1]), np.uint8)

    def some(bands: Sequence[_Band]) -> None:
        for r in bands:
            step = max(1, ONE_THREAD // r.weights.size)
            for low in range(0, flat.shape[1], step):
                part = slice(low, low + step)
                product = r.weights.T @ flat[r.first : r.last, part].astype(np.float64)
                tall[r.start : r.stop, part] = _rounded(product, kind)

    share(some, bands, threads)
    return tall


def resize_bilinear(image: NDArray[np.uint8], size: tuple[int, int], threads: int = 1) -> NDArray[np.uint8]:
    """Resize (H, W, C) uint8 to `size` (height, width) as Pillow's BILINEAR does.

    To the bit, where Pillow takes the columns first; within one level where it takes the rows first. More
    `threads` change no value.
    """
    return _resized(image, size, (0, 0, *size), _BILINEAR, threads)


def resize_bicubic(
    image: NDArray[np.uint8], size: tuple[int, int], window: tuple[int, int, int, int] | None = None
) -> NDArray[np.uint8]:
    """Resize (H, W, C) uint8 to `size` (height, width) as Pillow's BICUBIC does; exact as `resize_bilinear`.

    With a `window` (top, left, height, width) of the result, only that part of it is made.
    """
    return _resized(image, size, window or (0, 0, *size), _BICUBIC)
