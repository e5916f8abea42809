"""Prepare an image for the encoder: check, resize, normalise, pad. NumPy only."""

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
    """How an image is prepared for the encoder.

    Attributes:
        size: (height, width) of the encoder's input in pixels.
        resize: "longest_side" keeps the aspect ratio and pads right and bottom; "stretch" does not.
        antialias: resize with Pillow's bilinear filter on uint8; otherwise with PyTorch's `interpolate` on
            floats.
        mean: of the channels R, G, B, on the scale 0 to 255.
        std: of the channels R, G, B, on the scale 0 to 255.
        pad_value: of the padding, after normalisation.
    """

    size: tuple[int, int]
    resize: str
    antialias: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad_value: float


def check_image(image: Any) -> NDArray[np.uint8]:
    """Return `image` if it is an array (H, W, 3), uint8, with at least one pixel. Channels are RGB.

    Raises:
        ImageError: it is not; says what it is and how to convert it.
    """
    expected = "expected an array (height, width, 3), uint8, RGB from 0 to 255"
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"the image is a {type(image).__name__}; {expected}; a Pillow image is "
            "np.asarray(image.convert('RGB'))"
        )
    if 0 in image.shape:
        raise ImageError(f"the image has shape {image.shape}, which has no pixels; {expected}")
    if image.ndim == 2:
        raise ImageError(
            f"the image has shape {image.shape}; {expected}; convert grayscale with "
            "np.repeat(image[..., None], 3, axis=2)"
        )
    if image.ndim == 3 and image.shape[2] == 4:
        raise ImageError(
            f"the image has shape {image.shape}; {expected}; convert RGBA with image[..., :3] or by blending"
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f"the image has shape {image.shape}; {expected}")
    if image.dtype != np.uint8:
        how = {
            "u": "convert 16 bits with (image >> 8).astype(np.uint8)",
            "f": "convert floats from 0 to 1 with np.rint(255 * image).astype(np.uint8)",
        }
        hint = f"; {how[image.dtype.kind]}" if image.dtype.kind in how else ""
        raise ImageError(f"the image has dtype {image.dtype}; {expected}{hint}")
    return image


def resized_size(original: tuple[int, int], rules: InputRules) -> tuple[int, int]:
    """Return the size to which an image is resized, before padding.

    "longest_side" rounds as `ResizeLongestSide` of segment-anything; "stretch" fills the input.

    Args:
        original: (height, width) of the image in pixels.
        rules: the encoder's.

    Returns:
        (height, width) in pixels.
    """
    if rules.resize == "stretch":
        return rules.size
    scale = max(rules.size) / max(original)
    height, width = (max(1, int(side * scale + 0.5)) for side in original)
    return height, width


def preprocess(
    image: NDArray[np.uint8], rules: InputRules, threads: int = 1
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Resize, normalise and pad an image.

        images, resized = preprocess(image, manifest.input)

    Args:
        image: (H, W, 3) uint8 RGB.
        rules: the encoder's.
        threads: for resizing.

    Returns:
        images (1, 3, S, S) float32, the encoder's input; and the (height, width) of the image inside it.

    Raises:
        ImageError: not such an image.
    """
    resized = resize(image, rules, threads)
    return normalize(resized, rules), (resized.shape[0], resized.shape[1])


def normalize(resized: NDArray[Any], rules: InputRules) -> NDArray[np.float32]:
    """Normalise and pad a resized image.

    Args:
        resized: (h, w, 3) RGB from 0 to 255, no larger than the encoder's input.
        rules: the encoder's.

    Returns:
        (1, 3, S, S) float32.
    """
    height, width = resized.shape[:2]
    images = np.full((1, 3, *rules.size), rules.pad_value, np.float32)
    for channel, (mean, std) in enumerate(zip(rules.mean, rules.std, strict=True)):
        plane = images[0, channel, :height, :width]
        plane[...] = resized[..., channel]
        plane -= np.float32(mean)
        plane /= np.float32(std)
    return images


def letterbox(resized: NDArray[Any], rules: InputRules) -> NDArray[np.uint8]:
    """Pad a resized image with zeros, for encoders that normalise in the graph.

    Args:
        resized: (h, w, 3) RGB from 0 to 255, no larger than the encoder's input.
        rules: the encoder's.

    Returns:
        (1, S, S, 3) uint8 RGB.
    """
    height, width = resized.shape[:2]
    boxed = np.zeros((1, *rules.size, 3), np.uint8)
    boxed[0, :height, :width] = np.rint(resized)
    return boxed


def resize(image: NDArray[np.uint8], rules: InputRules, threads: int = 1) -> NDArray[Any]:
    """Resize an image to the size that it has inside the encoder's input.

    Args:
        image: (H, W, 3) uint8 RGB.
        rules: the encoder's.
        threads: used if `rules.antialias`.

    Returns:
        (h, w, 3) RGB from 0 to 255: uint8 if `rules.antialias`, else float32.

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
