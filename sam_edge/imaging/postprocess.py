"""Upscale low-resolution logits to masks at the original image's size. NumPy only.

The published predictor interpolates twice: to the encoder's input, then, its padding cropped, to the original
image. Both are linear along each axis, so together they are one matrix for the rows and one for the columns,
and a band of output pixels depends on a few low-resolution pixels only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Size = tuple[int, int]

# Output rows and columns per band, so that its logits stay in the processor's cache.
_ROWS, _COLUMNS = 32, 64
# Multiplications per matmul. OpenBLAS splits larger ones across threads, which gains nothing at these sizes
# and waits where other work has the other cores.
ONE_THREAD = 262_144


def bilinear(old: int, new: int) -> NDArray[np.float64]:
    """Return the matrix (new, old) of bilinear interpolation along one axis, with half-pixel centres.

    As PyTorch's `interpolate` with align_corners=False and without antialiasing.
    """
    sources, weights = _taps(old, new)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new), sources), weights)
    return matrix


def _taps(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the two source indices of each output and their weights, (2, new) each."""
    at = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    low = np.minimum(at.astype(np.intp), old - 1)
    return np.stack([low, np.minimum(low + 1, old - 1)]), np.stack([1 - (at - low), at - low])


@dataclass(frozen=True)
class _Band:
    """Outputs [start, stop) are `weights` (outputs, inputs) @ inputs [first, last)."""

    start: int
    stop: int
    first: int
    last: int
    weights: Floats


@lru_cache(maxsize=64)
def _bands(low_res: int, padded: int, resized: int, original: int, width: int) -> list[_Band]:
    """Return one axis in bands of `width`: upscale to the input, crop its padding, resize to the original."""
    (inner, inner_weights), (outer, outer_weights) = _taps(low_res, padded), _taps(resized, original)
    # Each output depends on two pixels of the input, each of which depends on two logits.
    sources = inner[:, outer].reshape(4, original)
    weights = (inner_weights[:, outer] * outer_weights).reshape(4, original)
    sources = np.where(weights > 0, sources, sources[0])
    bands = []
    for start in range(0, original, width):
        stop = min(start + width, original)
        used = sources[:, start:stop]
        first, last = int(used.min()), int(used.max()) + 1
        block = np.zeros((stop - start, last - first))
        np.add.at(block, (np.arange(stop - start), used - first), weights[:, start:stop])
        bands.append(_Band(start, stop, first, last, block.astype(np.float32)))
    return bands


@dataclass(frozen=True)
class Upscaling:
    """Upscales masks to the size of one image. All sizes are (height, width) in pixels.

        upscaling.masks(low_res_logits, threshold=0.0)  # (N, M, H, W) bool

    Attributes:
        low_res_size: of the low-resolution logits.
        input_size: of the encoder's input, padding included.
        resized_size: of the image inside the encoder's input.
        original_size: of the image.
    """

    low_res_size: Size
    input_size: Size
    resized_size: Size
    original_size: Size

    def _axes(self) -> tuple[list[_Band], list[_Band]]:
        rows, columns = zip(
            self.low_res_size, self.input_size, self.resized_size, self.original_size, strict=True
        )
        return _bands(*rows, _ROWS), _bands(*columns, _COLUMNS)

    def logits(self, low_res_logits: Floats) -> Floats:
        """Upscale logits: (N, M, h, w) -> (N, M, H, W) float32."""
        return self._map(low_res_logits, None)

    def masks(self, low_res_logits: Floats, threshold: float) -> NDArray[np.bool_]:
        """Upscale and threshold: (N, M, h, w) float32 -> (N, M, H, W) bool, True above `threshold`."""
        return self._map(low_res_logits, threshold)

    def downscale(self, logits: Floats) -> Floats:
        """Downscale a mask's logits to a mask prompt: (H, W) -> (h, w) float32; padding is background."""
        background = np.float32(min(-10.0, logits.min()))
        inside = Upscaling(self.original_size, self.original_size, self.original_size, self.resized_size)
        padded = np.full((1, 1, *self.input_size), background, np.float32)
        height, width = self.resized_size
        padded[..., :height, :width] = inside.logits(logits[None, None])
        return Upscaling(self.input_size, self.input_size, self.input_size, self.low_res_size).logits(padded)[
            0, 0
        ]

    def _map(self, low_res_logits: Floats, threshold: float | None) -> NDArray[Any]:
        rows, columns = self._axes()
        dtype = np.float32 if threshold is None else np.bool_
        found = np.empty((*low_res_logits.shape[:2], *self.original_size), dtype)
        scratch = np.empty((_ROWS, self.original_size[1]), np.float32)
        wide = np.empty((rows[-1].last, self.original_size[1]), np.float32)
        for index in np.ndindex(low_res_logits.shape[:2]):
            low, out = np.asarray(low_res_logits[index], np.float32), found[index]
            for c in columns:
                _product(low[: len(wide), c.first : c.last], c.weights.T, wide[:, c.start : c.stop])
            for r in rows:
                here = out[r.start : r.stop]
                if threshold is None:
                    _product(r.weights, wide[r.first : r.last], here)
                else:
                    values = _product(r.weights, wide[r.first : r.last], scratch[: len(here)])
                    np.greater(values, threshold, out=here)
        return found

    def window(self, low_res_logits: Floats, threshold: float, offset: float) -> Window:
        """Upscale and threshold one mask, only in bands that may be above `threshold - offset`.

        Interpolation never exceeds its largest input, so nothing is missed.

        Args:
            low_res_logits: (h, w) float32.
            threshold: of the mask.
            offset: moves the threshold both ways for the stability score.
        """
        rows, columns = self._axes()
        above = low_res_logits > threshold - offset
        rows = _bands_touching(rows, np.flatnonzero(above.any(axis=1)))
        columns = _bands_touching(columns, np.flatnonzero(above.any(axis=0)))
        if not rows or not columns:
            return Window(0, 0, np.zeros((0, 0), bool), 0, 0)
        top, left = rows[0].start, columns[0].start
        width = columns[-1].stop - left
        first, last = rows[0].first, rows[-1].last
        wide = np.empty((last - first, width), np.float32)
        for c in columns:
            part = low_res_logits[first:last, c.first : c.last]
            _product(part, c.weights.T, wide[:, c.start - left : c.stop - left])
        mask = np.empty((rows[-1].stop - top, width), bool)
        scratch = np.empty((_ROWS, width), np.float32)
        inner = outer = 0
        for r in rows:
            here = mask[r.start - top : r.stop - top]
            values = _product(r.weights, wide[r.first - first : r.last - first], scratch[: len(here)])
            inner += int(np.count_nonzero(values > threshold + offset))
            outer += int(np.count_nonzero(values > threshold - offset))
            np.greater(values, threshold, out=here)
        return Window(top, left, mask, inner, outer)


@dataclass(frozen=True)
class Window:
    """A part of a mask at the original size; the mask is empty elsewhere.

    Attributes:
        top, left: of the part, in pixels.
        mask: (h, w) bool.
        inner, outer: number of pixels above the threshold raised, and lowered, by the offset.
    """

    top: int
    left: int
    mask: NDArray[np.bool_]
    inner: int
    outer: int

    @property
    def stability_score(self) -> float:
        """IoU of the mask at the raised and at the lowered threshold; NaN if both are empty."""
        return self.inner / self.outer if self.outer else float("nan")


def _product(a: Floats, b: Floats, out: Floats) -> Floats:
    """Compute a @ b into `out`, in blocks of columns small enough for one thread."""
    step = max(1, ONE_THREAD // a.size)
    for start in range(0, b.shape[1], step):
        np.matmul(a, b[:, start : start + step], out=out[:, start : start + step])
    return out


def _bands_touching(bands: list[_Band], inputs: NDArray[np.intp]) -> list[_Band]:
    """Return the bands from the first to the last that depend on any of `inputs`, which are sorted."""
    if not inputs.size:
        return []
    return [band for band in bands if band.first <= inputs[-1] and band.last > inputs[0]]
