"""Draws the worst masks for the report (Pillow, of the `cli` extra)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sam_edge.bundle.golden import GoldenPrompt
from sam_edge.system.files import write_atomically

_MASK, _ONLY_REFERENCE, _ONLY_VARIANT = (30, 144, 255), (0, 114, 178), (230, 159, 0)

_LONGEST = 1200


def write_comparison(
    path: Path,
    image: NDArray[np.uint8],
    reference: NDArray[np.bool_],
    variant: NDArray[np.bool_],
    prompt: GoldenPrompt,
) -> None:
    """Write a PNG of three panels: the reference's mask, the variant's, and where they differ.

    In the third, blue is in the reference's mask only and orange in the variant's only.

    Args:
        path: the file.
        image: (H, W, 3) uint8 RGB.
        reference: (H, W) bool.
        variant: (H, W) bool.
        prompt: drawn on each panel.
    """
    grey = np.repeat((image.mean(axis=2) * 0.6 + 60).astype(np.uint8)[..., None], 3, axis=2)
    panels = [_tinted(image, reference, _MASK), _tinted(image, variant, _MASK)]
    difference = _tinted(grey, reference & ~variant, _ONLY_REFERENCE, 0.9)
    panels.append(_tinted(difference, variant & ~reference, _ONLY_VARIANT, 0.9))
    gap = np.full((image.shape[0], 8, 3), 255, np.uint8)
    drawn = Image.fromarray(
        np.concatenate([part for panel in panels for part in (_with_prompt(panel, prompt), gap)][:-1], axis=1)
    )
    # A page has one for each of the worst masks of each row.
    drawn.thumbnail((_LONGEST, _LONGEST))
    buffer = io.BytesIO()
    drawn.quantize(256).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def _tinted(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int], share: float = 0.5
) -> NDArray[np.uint8]:
    tinted = image.copy()
    tinted[mask] = ((1 - share) * image[mask] + share * np.array(colour)).astype(np.uint8)
    return tinted


def _with_prompt(panel: NDArray[np.uint8], prompt: GoldenPrompt) -> NDArray[np.uint8]:
    drawn = Image.fromarray(panel)
    draw = ImageDraw.Draw(drawn)
    line = max(2, max(panel.shape) // 200)
    if prompt.box is not None:
        draw.rectangle(tuple(float(v) for v in prompt.box), outline=(255, 255, 255), width=line)
    if prompt.point_coords is not None and prompt.point_labels is not None:
        for (x, y), label in zip(prompt.point_coords.tolist(), prompt.point_labels.tolist(), strict=True):
            fill = (40, 220, 80) if label == 1 else (230, 40, 40)
            draw.ellipse((x - 3 * line, y - 3 * line, x + 3 * line, y + 3 * line), fill, (255, 255, 255))
    return np.asarray(drawn)
