"""Pictures in and out: the one place that needs Pillow (the `cli` extra)."""

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
    """The first few are chosen; hues a golden section apart stay distinct for any number."""
    if number < len(COLOURS):
        return COLOURS[number]
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def read_image(path: Path) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Raises:
        ImageError: missing, or not a picture.
    """
    try:
        # Pillow's remarks on odd metadata are no business of the user's.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            return _upright(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path} cannot be read as a picture ({error}); expected JPEG, PNG or the like"
        ) from error


class PixelsError(ImageError):
    """A picture with more pixels than are taken."""


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """As `read_image`, of the bytes of a stranger's file; only formats that browsers show are tried.

    Raises:
        ImageError: not such a picture.
        PixelsError: it has more than `max_pixels`.
    """
    with _opened(data, max_pixels) as picture:
        return _upright(picture)


def check_header(data: bytes, max_pixels: int) -> None:
    """Raise as `decode_image`, as far as the picture's header tells: no pixel is decoded."""
    with _opened(data, max_pixels):
        pass


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data), formats=_safe_formats()) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise PixelsError(
                    f"the picture has {width} x {height} pixels, {width * height / 1e6:.0f} megapixels; at "
                    f"most {max_pixels / 1e6:.0f} are taken: make it smaller first"
                )
            yield picture
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise PixelsError(
            f"the picture has far more than the {max_pixels / 1e6:.0f} megapixels that are taken ({error}); "
            "make it smaller first"
        ) from error
    except Exception as error:  # damaged pictures raise nearly anything
        reason = "it is none" if isinstance(error, UnidentifiedImageError) else error
        raise ImageError(
            f"the file cannot be read as a picture ({reason}); expected JPEG, PNG, WebP, GIF or BMP"
        ) from error


@cache
def _safe_formats() -> list[str]:
    """Those that browsers show and this Pillow reads; some of the others start programs."""
    Image.init()
    return [name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF") if name in Image.OPEN]


def _upright(picture: Image.Image) -> NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I;16"):  # convert() would clip, not scale
        upright = Image.fromarray((np.array(upright) >> 8).astype(np.uint8))
    return np.array(upright.convert("RGB"))


def _write(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """(H, W) bool -> a PNG, white where the mask is."""
    _write(path, Image.fromarray(mask.astype(np.uint8) * 255))


def write_overlay(
    path: Path,
    image: NDArray[np.uint8],
    masks: Iterable[NDArray[np.bool_]],
    points: Sequence[tuple[float, float, int]] = (),
    boxes: Sequence[Sequence[float]] = (),
) -> None:
    """The image with each mask tinted and outlined, and the prompts drawn, as PNG."""
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
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        draw.rectangle(tuple(box), outline=(255, 255, 255), width=line)
    radius = 3 * line
    for x, y, label in points:
        fill = (40, 220, 80) if label == 1 else (230, 40, 40)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill, (255, 255, 255), line)
    _write(path, picture)
