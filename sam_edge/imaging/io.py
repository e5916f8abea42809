"""Read and write images with Pillow (the extra `cli`); the only module of the runtime that needs it."""

from __future__ import annotations

import colorsys
import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from ..errors import ImageError
from ..system.files import write_atomically

COLOURS = ((30, 144, 255), (255, 127, 14), (44, 200, 90), (214, 60, 160), (250, 200, 0))
_GOLDEN_RATIO = 0.618034


def _colour(number: int) -> tuple[int, int, int]:
    """Return an RGB colour from 0 to 255; beyond the table, hues a golden section apart stay distinct."""
    if number < len(COLOURS):
        return COLOURS[number]
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file.

        image = read_image(Path("photo.jpg"))

    Args:
        path: any format that Pillow reads.

    Returns:
        (H, W, 3) uint8 RGB, rotated by its EXIF orientation. Alpha is dropped, grey repeated, 16 bits scaled
        to 8.

    Raises:
        ImageError: the file is missing or not an image.
    """
    try:
        # Pillow warns of odd metadata, which does not affect the pixels.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as opened:
            return _to_rgb(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path} cannot be read as an image ({error}); expected JPEG, PNG or another format of Pillow"
        ) from error


class ImageTooLargeError(ImageError):
    """An image with more pixels than the limit."""


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode an untrusted image file, of a format that browsers show: JPEG, PNG, WebP, GIF, BMP or AVIF.

    Args:
        data: the file's bytes.
        max_pixels: the limit on height times width.

    Returns:
        (H, W, 3) uint8 RGB, as `read_image`.

    Raises:
        ImageError: not an image of these formats.
        ImageTooLargeError: more than `max_pixels`; raised before pixels are decoded.
    """
    with _open_untrusted(data, max_pixels) as opened:
        return _to_rgb(opened)


def check_header(data: bytes, max_pixels: int) -> None:
    """Raise the errors of `decode_image` that the image's header shows, without decoding pixels."""
    with _open_untrusted(data, max_pixels):
        pass


@contextlib.contextmanager
def _open_untrusted(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data), formats=_safe_formats()) as opened:
            width, height = opened.size
            if width * height > max_pixels:
                raise ImageTooLargeError(
                    f"the image has {width} x {height} pixels, {width * height / 1e6:.0f} megapixels; the "
                    f"limit is {max_pixels / 1e6:.0f}: make it smaller first"
                )
            yield opened
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(
            f"the image has far more than the limit of {max_pixels / 1e6:.0f} megapixels ({error}); make it "
            "smaller first"
        ) from error
    except Exception as error:  # damaged images raise nearly anything
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise ImageError(
            f"the file cannot be read as an image ({reason}); expected JPEG, PNG, WebP, GIF or BMP"
        ) from error


@cache
def _safe_formats() -> list[str]:
    """List the formats that browsers show and this Pillow reads; some other formats start programs."""
    Image.init()
    return [name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF") if name in Image.OPEN]


def _to_rgb(opened: Image.Image) -> NDArray[np.uint8]:
    """Rotate by the EXIF orientation and convert to (H, W, 3) uint8 RGB."""
    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I;16"):  # convert() would clip, not scale
        upright = Image.fromarray((np.array(upright) >> 8).astype(np.uint8))
    return np.array(upright.convert("RGB"))


def _write_png(path: Path, image: Image.Image) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask as a grey PNG, 255 inside and 0 outside.

    Args:
        path: the file.
        mask: (H, W) bool.

    Raises:
        OutputError: the file cannot be written.
    """
    _write_png(path, Image.fromarray(mask.astype(np.uint8) * 255))


def write_overlay(
    path: Path,
    image: NDArray[np.uint8],
    masks: Iterable[NDArray[np.bool_]],
    points: Sequence[tuple[float, float, int]] = (),
    boxes: Sequence[Sequence[float]] = (),
) -> None:
    """Write the image as PNG, each mask tinted and outlined in its colour, prompts drawn on top.

    Args:
        path: the file.
        image: (H, W, 3) uint8 RGB.
        masks: (H, W) bool each; later ones are drawn over earlier ones.
        points: (x, y, label) in pixels: label 1 is drawn green, others red.
        boxes: (x0, y0, x1, y1) in pixels.

    Raises:
        OutputError: the file cannot be written.
    """
    height, width = image.shape[:2]
    line = max(1, round(max(height, width) / 320))
    canvas = image.copy()
    for number, mask in enumerate(masks):
        colour = np.array(_colour(number))
        canvas[mask] = (0.55 * canvas[mask] + 0.45 * colour).astype(np.uint8)
        edge = np.zeros_like(mask)
        for axis in (0, 1):
            change = np.diff(mask, axis=axis)
            index = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
            edge[index] |= change
        for _ in range(line - 1):
            edge[1:] |= edge[:-1]
            edge[:, 1:] |= edge[:, :-1]
        canvas[edge] = colour
    overlay = Image.fromarray(canvas)
    draw = ImageDraw.Draw(overlay)
    for box in boxes:
        draw.rectangle(tuple(box), outline=(255, 255, 255), width=line)
    radius = 3 * line
    for x, y, label in points:
        fill = (40, 220, 80) if label == 1 else (230, 40, 40)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill, (255, 255, 255), line)
    _write_png(path, overlay)
