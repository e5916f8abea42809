"""From an image to the encoder's input, in NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .postprocess import bilinear
from .resample import resize_bilinear


@dataclass(frozen=True)
class InputRules:
    """How an image becomes the encoder's input.

    `size` is (height, width) in pixels; `resize` is "longest_side" or "stretch", with `antialias` as
    Pillow's bilinear on uint8, without as PyTorch's `interpolate` on floats; `mean` and `std` are on the 0
    to 255 scale, RGB; `pad_value` is added after normalisation, on the right and at the bottom.
    """

    size: tuple[int, int]
    resize: str
    antialias: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad_value: float


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


def preprocess(
    image: NDArray[np.uint8], rules: InputRules, threads: int = 1
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """(H, W, 3) uint8 RGB -> images (1, 3, S, S) float32, and the (h, w) it was resized to.

    `threads` share the resizing.

    Raises:
        ImageError: not such an image.
    """
    resized = resize(image, rules, threads)
    return normalize(resized, rules), (resized.shape[0], resized.shape[1])


def normalize(resized: NDArray[Any], rules: InputRules) -> NDArray[np.float32]:
    """(h, w, 3) RGB from 0 to 255, no larger than the encoder's input -> images (1, 3, S, S) float32."""
    height, width = resized.shape[:2]
    images = np.full((1, 3, *rules.size), rules.pad_value, np.float32)
    for channel, (mean, std) in enumerate(zip(rules.mean, rules.std, strict=True)):
        plane = images[0, channel, :height, :width]
        plane[...] = resized[..., channel]
        plane -= np.float32(mean)
        plane /= np.float32(std)
    return images


def letterbox(resized: NDArray[Any], rules: InputRules) -> NDArray[np.uint8]:
    """(h, w, 3) RGB from 0 to 255 -> (1, S, S, 3) uint8, for encoders that normalise themselves."""
    height, width = resized.shape[:2]
    boxed = np.zeros((1, *rules.size, 3), np.uint8)
    boxed[0, :height, :width] = np.rint(resized)
    return boxed


def resize(image: NDArray[np.uint8], rules: InputRules, threads: int = 1) -> NDArray[Any]:
    """(H, W, 3) uint8 RGB as it will be inside the encoder's input; uint8 where that is antialiased, else
    float32. `threads` share the work where it is antialiased.

    Raises:
        ImageError: not such an image.
    """
    image = check_image(image)
    height, width = resized_size((image.shape[0], image.shape[1]), rules)
    if rules.antialias:
        return resize_bilinear(image, (height, width), threads)
    rows, columns = (
        bilinear(*sides).astype(np.float32) for sides in zip(image.shape, (height, width), strict=False)
    )
    planes = rows @ image.transpose(2, 0, 1).astype(np.float32) @ columns.T
    return planes.transpose(1, 2, 0)
