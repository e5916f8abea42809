"""From low-resolution logits to masks at the original image's size, in NumPy only.

The published predictor interpolates twice: to the encoder's input, then, without its padding, to the
original image. Both are linear along each axis, so they are one matrix for the rows and one for the
columns, and a band of output pixels depends on a few low-resolution pixels only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Size = tuple[int, int]

# Output rows and columns in a band: its logits stay in the processor's cache.
_ROWS, _COLUMNS = 32, 64
# Multiplications in one matrix product. OpenBLAS shares larger ones among threads, which gains nothing at
# these sizes, and waits where something else has the other cores.
ONE_THREAD = 262_144


def bilinear(old: int, new: int) -> NDArray[np.float64]:
    """Bilinear interpolation with half-pixel centres (align_corners=False) of one axis, as a matrix
    (new, old)."""
    sources, weights = _taps(old, new)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new), sources), weights)
    return matrix


def _taps(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The two inputs that each output is made of, and their weights: (2, new) each."""
    at = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    low = np.minimum(at.astype(np.intp), old - 1)
    return np.stack([low, np.minimum(low + 1, old - 1)]), np.stack([1 - (at - low), at - low])


@dataclass(frozen=True)
class _Band:
    """Outputs [start, stop) are `weights` (outputs, inputs) times the inputs [first, last)."""

    start: int
    stop: int
    first: int
    last: int
    weights: Floats


@lru_cache(maxsize=64)
def _bands(low_res: int, padded: int, resized: int, original: int, width: int) -> list[_Band]:
    """Up to the padded input, crop the padding, on to the original: one axis, in bands of `width`."""
    (inner, inner_weights), (outer, outer_weights) = _taps(low_res, padded), _taps(resized, original)
    # Of each output, two pixels of the input, two logits each.
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
    """How masks of one image are brought to its size; every size is (height, width) in pixels.

    Attributes:
        low_res_size: of the low-resolution logits.
        input_size: of the encoder's input with its padding.
        resized_size: of the image inside it.
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
        """(N, M, h, w) -> (N, M, H, W) float32."""
        return self._map(low_res_logits, None)

    def masks(self, low_res_logits: Floats, threshold: float) -> NDArray[np.bool_]:
        """(N, M, h, w) -> (N, M, H, W) bool: where the logits at the original size are above `threshold`."""
        return self._map(low_res_logits, threshold)

    def downscale(self, logits: Floats) -> Floats:
        """(H, W) -> (h, w): a mask's logits as the decoder takes them; the padding is not in the mask."""
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
        """One mask (h, w), computed only where it can be: bands with a logit above `threshold - offset`.

        Interpolation never goes above its largest input, so nothing is left out.
        """
        rows, columns = self._axes()
        above = low_res_logits > threshold - offset
        rows = _touching(rows, np.flatnonzero(above.any(axis=1)))
        columns = _touching(columns, np.flatnonzero(above.any(axis=0)))
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
    """The part of a mask at the original size outside which it is empty.

    Attributes:
        top, left: where the part begins, in pixels.
        mask: (h, w) bool.
        inner, outer: pixels above the threshold raised, and lowered, by the offset.
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
    """a @ b, written to `out`, a few columns of `b` at a time."""
    step = max(1, ONE_THREAD // a.size)
    for start in range(0, b.shape[1], step):
        np.matmul(a, b[:, start : start + step], out=out[:, start : start + step])
    return out


def _touching(bands: list[_Band], inputs: NDArray[np.intp]) -> list[_Band]:
    """The bands from the first to the last that depend on any of `inputs`, which are sorted."""
    if not inputs.size:
        return []
    return [band for band in bands if band.first <= inputs[-1] and band.last > inputs[0]]
