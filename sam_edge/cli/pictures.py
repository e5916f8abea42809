"""Pictures in and out: the one place that needs Pillow (the `cli` extra)."""

from __future__ import annotations

import colorsys
import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from ..errors import ImageError
from ..files import write_atomically

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
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I;16"):  # convert() would clip, not scale
                upright = Image.fromarray((np.array(upright) >> 8).astype(np.uint8))
            return np.array(upright.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path} cannot be read as a picture ({error}); expected JPEG, PNG or the like"
        ) from error


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
