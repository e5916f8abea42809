"""From an image to the encoder's input, in NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ImageError
from .manifest import InputRules
from .postprocess import ONE_THREAD, bilinear

_PRECISION_BITS = 32 - 8 - 2
# Input rows at a time: what is worked on stays in the processor's cache.
_ROWS = 128


def check_image(image: Any) -> NDArray[np.uint8]:
    """Return `image` if it is (H, W, 3) uint8 RGB with at least one pixel.

    Raises:
        ImageError: says what it is instead.
    """
    expected = "expected an array (height, width, 3), uint8, RGB from 0 to 255"
    if not isinstance(image, np.ndarray):
        raise ImageError(f"the image is a {type(image).__name__}; {expected}")
    if 0 in image.shape:
        raise ImageError(f"the image has shape {image.shape}, no pixel; {expected}")
    if image.ndim == 2:
        raise ImageError(
            f"the image has shape {image.shape}; {expected}; of a grayscale image, "
            "np.repeat(image[..., None], 3, axis=2)"
        )
    if image.ndim == 3 and image.shape[2] == 4:
        raise ImageError(f"the image has shape {image.shape}; {expected}; of RGBA, image[..., :3] or a blend")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f"the image has shape {image.shape}; {expected}")
    if image.dtype != np.uint8:
        how = {
            "u": "of 16 bits, (image >> 8).astype(np.uint8)",
            "f": "of floats from 0 to 1, np.rint(255 * image).astype(np.uint8)",
        }
        hint = f"; {how[image.dtype.kind]}" if image.dtype.kind in how else ""
        raise ImageError(f"the image has dtype {image.dtype}; {expected}{hint}")
    return image


def resized_size(original: tuple[int, int], rules: InputRules) -> tuple[int, int]:
    """(H, W) of the image inside the encoder's input, before padding.

    `longest_side` follows `ResizeLongestSide` of segment-anything; `stretch` fills the input.
    """
    if rules.resize == "stretch":
        return rules.size
    scale = max(rules.size) / max(original)
    height, width = (max(1, int(side * scale + 0.5)) for side in original)
    return height, width


@dataclass(frozen=True)
class _Band:
    """Outputs [start, stop) are the inputs [first, last) times `weights` (inputs, outputs)."""

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.floating]

    def interleaved(self, channels: int) -> _Band:
        """The same for pixels of several values, one after the other."""
        edges = channels * np.array([self.start, self.stop, self.first, self.last])
        start, stop, first, last = edges.tolist()
        return _Band(start, stop, first, last, np.kron(self.weights, np.eye(channels)))


def _taps(old: int, new: int, i: int) -> tuple[int, NDArray[np.int64]]:
    """The first source index and the fixed-point weights of output `i` under Pillow's triangle filter.

    After `precompute_coeffs` and `normalize_coeffs_8bpc` in Pillow's Resample.c.
    """
    scale = old / new
    support = max(scale, 1.0)
    centre = (i + 0.5) * scale
    first = max(0, int(centre - support + 0.5))
    last = min(old, int(centre + support + 0.5))
    # Operation by operation as in C, so that the rounded weights are the same to the last bit.
    distance = (np.arange(first, last) - centre + 0.5) * (1.0 / support)
    triangle = np.maximum(0.0, 1.0 - np.abs(distance))
    triangle /= np.cumsum(triangle)[-1]
    return first, (triangle * (1 << _PRECISION_BITS) + 0.5).astype(np.int64)


@lru_cache(maxsize=32)
def _bands(old: int, new: int, channels: int, width: int) -> list[_Band]:
    """One axis of `old` pixels of `channels` interleaved values, resampled to `new`, in bands of `width`."""
    bands = []
    for start in range(0, new, width):
        taps = [_taps(old, new, i) for i in range(start, min(start + width, new))]
        first = min(at for at, _ in taps)
        last = max(at + len(weights) for at, weights in taps)
        matrix = np.zeros((last - first, len(taps)))
        for column, (at, weights) in enumerate(taps):
            matrix[at - first : at - first + len(weights), column] = weights / (1 << _PRECISION_BITS)
        bands.append(_Band(start, start + len(taps), first, last, matrix).interleaved(channels))
    return bands


def resize_bilinear(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, C) uint8 to `size` (height, width) as Pillow's antialiased BILINEAR does.

    To the bit for one axis, and for both in the order of the classic Pillow: columns first. Recent
    releases sometimes take the rows first, which differs by at most one level.

    Pillow sums integers of 8 by 22 bits; float64 holds those sums exactly, so they are matrix products here.
    """
    height, width = size
    old_height, old_width, channels = image.shape
    flat = image.reshape(old_height, -1)
    if old_width != width:
        bands = _bands(old_width, width, channels, _columns(old_width / width))
        step = min(_ROWS, max(1, ONE_THREAD // max(band.weights.size for band in bands)))
        wide = np.empty((old_height, width * channels), np.uint8)
        buffer = np.empty((step, width * channels))
        for top in range(0, old_height, step):
            rows = flat[top : top + step].astype(np.float64)
            here = buffer[: len(rows)]
            for c in bands:
                np.matmul(rows[:, c.first : c.last], c.weights, out=here[:, c.start : c.stop])
            here += 0.5
            wide[top : top + step] = here  # cut off: rounded half up
        flat = wide
    if old_height != height:
        tall = np.empty((height, flat.shape[1]), np.uint8)
        for r in _bands(old_height, height, 1, _columns(old_height / height)):
            step = max(1, ONE_THREAD // r.weights.size)
            for left in range(0, flat.shape[1], step):
                columns = slice(left, left + step)
                sums = r.weights.T @ flat[r.first : r.last, columns].astype(np.float64)
                sums += 0.5
                tall[r.start : r.stop, columns] = sums
        flat = tall
    return flat.reshape(height, width, channels)


def _columns(scale: float) -> int:
    """Outputs in a band: as many as share most of their inputs where `scale` inputs become one output."""
    return max(2, min(16, round(16 / scale)))


def preprocess(image: NDArray[np.uint8], rules: InputRules) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """(H, W, 3) uint8 RGB -> images (1, 3, S, S) float32, and the (h, w) it was resized to.

    Raises:
        ImageError: not such an image.
    """
    resized = resize(image, rules)
    return normalize(resized, rules), (resized.shape[0], resized.shape[1])


def normalize(resized: NDArray[Any], rules: InputRules) -> NDArray[np.float32]:
    """(h, w, 3) RGB from 0 to 255, no larger than the encoder's input -> images (1, 3, S, S) float32."""
    height, width = resized.shape[:2]
    images = np.full((1, 3, *rules.size), rules.pad_value, np.float32)
    for channel, (mean, std) in enumerate(zip(rules.mean, rules.std, strict=True)):
        plane, values = images[0, channel, :height, :width], resized[..., channel]
        if resized.dtype == np.uint8:
            levels = (np.arange(256, dtype=np.float32) - np.float32(mean)) / np.float32(std)
            plane[...] = levels[values]
        else:
            np.divide(values - np.float32(mean), np.float32(std), out=plane)
    return images


def letterbox(resized: NDArray[Any], rules: InputRules) -> NDArray[np.uint8]:
    """(h, w, 3) RGB from 0 to 255 -> (1, S, S, 3) uint8, for encoders that normalise themselves."""
    height, width = resized.shape[:2]
    boxed = np.zeros((1, *rules.size, 3), np.uint8)
    boxed[0, :height, :width] = np.rint(resized)
    return boxed


def resize(image: NDArray[np.uint8], rules: InputRules) -> NDArray[Any]:
    """(H, W, 3) uint8 RGB as it will be inside the encoder's input; uint8 where that is antialiased, else
    float32.

    Raises:
        ImageError: not such an image.
    """
    image = check_image(image)
    height, width = resized_size((image.shape[0], image.shape[1]), rules)
    if rules.antialias:
        return resize_bilinear(image, (height, width))
    rows, columns = (
        bilinear(*sides).astype(np.float32) for sides in zip(image.shape, (height, width), strict=False)
    )
    planes = rows @ image.transpose(2, 0, 1).astype(np.float32) @ columns.T
    return planes.transpose(1, 2, 0)
