"""From an image to the encoder's input, in NumPy only."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ImageError
from .manifest import InputRules
from .postprocess import bilinear

_PRECISION_BITS = 32 - 8 - 2


def check_image(image: Any) -> NDArray[np.uint8]:
    """Return `image` if it is (H, W, 3) uint8 RGB with at least one pixel.

    Raises:
        ImageError: says what it is instead.
    """
    expected = "expected an array (height, width, 3), uint8, RGB from 0 to 255"
    if not isinstance(image, np.ndarray):
        raise ImageError(f"the image is a {type(image).__name__}; {expected}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ImageError(f"the image has shape {image.shape}; {expected}")
    if image.dtype != np.uint8:
        raise ImageError(f"the image has dtype {image.dtype}; {expected}")
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


@lru_cache(maxsize=32)
def _taps(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Source indices (new, taps) and fixed-point weights (new, taps) of Pillow's triangle filter.

    After `precompute_coeffs` and `normalize_coeffs_8bpc` in Pillow's Resample.c.
    """
    scale = old / new
    support = max(scale, 1.0)
    taps = math.ceil(support) * 2 + 1
    indices = np.zeros((new, taps), np.intp)
    weights = np.zeros((new, taps), np.int32)
    for i in range(new):
        centre = (i + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(old, int(centre + support + 0.5))
        # Operation by operation as in C, so that the rounded weights are the same to the last bit.
        distance = (np.arange(first, last) - centre + 0.5) * (1.0 / support)
        triangle = np.maximum(0.0, 1.0 - np.abs(distance))
        triangle /= np.cumsum(triangle)[-1]
        n = last - first
        indices[i, :n] = np.arange(first, last)
        weights[i, :n] = (triangle * (1 << _PRECISION_BITS) + 0.5).astype(np.int32)
    return indices, weights


def _resample_rows(image: NDArray[np.uint8], new: int) -> NDArray[np.uint8]:
    """Resample the first axis to `new` rows."""
    indices, weights = _taps(image.shape[0], new)
    total = np.full((new, *image.shape[1:]), 1 << (_PRECISION_BITS - 1), np.int32)
    for index, weight in zip(indices.T, weights.T, strict=True):
        total += image[index] * weight.reshape(-1, *[1] * (image.ndim - 1))
    return np.clip(total >> _PRECISION_BITS, 0, 255).astype(np.uint8)


def resize_bilinear(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, C) uint8 to `size` (height, width) as Pillow's antialiased BILINEAR does.

    To the bit for one axis, and for both in the order of the classic Pillow: columns first. Recent
    releases sometimes take the rows first, which differs by at most one level.
    """
    height, width = size
    if image.shape[1] != width:
        columns = np.ascontiguousarray(image.swapaxes(0, 1))
        image = _resample_rows(columns, width).swapaxes(0, 1)
    if image.shape[0] != height:
        image = _resample_rows(np.ascontiguousarray(image), height)
    return image


def preprocess(image: NDArray[np.uint8], rules: InputRules) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """(H, W, 3) uint8 RGB -> images (1, 3, S, S) float32, and the (h, w) it was resized to.

    Raises:
        ImageError: not such an image.
    """
    resized = _resize(image, rules)
    height, width = resized.shape[:2]
    mean, std = np.array(rules.mean, np.float32), np.array(rules.std, np.float32)
    images = np.full((1, 3, *rules.size), rules.pad_value, np.float32)
    images[0, :, :height, :width] = ((resized.astype(np.float32) - mean) / std).transpose(2, 0, 1)
    return images, (height, width)


def letterbox(image: NDArray[np.uint8], rules: InputRules) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """(H, W, 3) uint8 RGB -> the same as (1, S, S, 3) uint8, for encoders that normalise themselves.

    Raises:
        ImageError: not such an image.
    """
    resized = _resize(image, rules)
    height, width = resized.shape[:2]
    boxed = np.zeros((1, *rules.size, 3), np.uint8)
    boxed[0, :height, :width] = np.rint(resized)
    return boxed, (height, width)


def _resize(image: NDArray[np.uint8], rules: InputRules) -> NDArray[Any]:
    """uint8 where resizing is antialiased, else float32."""
    image = check_image(image)
    height, width = resized_size((image.shape[0], image.shape[1]), rules)
    if rules.antialias:
        return resize_bilinear(image, (height, width))
    rows, columns = (
        bilinear(*sides).astype(np.float32) for sides in zip(image.shape, (height, width), strict=False)
    )
    planes = rows @ image.transpose(2, 0, 1).astype(np.float32) @ columns.T
    return planes.transpose(1, 2, 0)
