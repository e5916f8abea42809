"""Refinement: a second pass on the crop around a mask gives crisper edges and thin parts.

The encoder sees the whole image at its own size, 1024 pixels or fewer, and masks are drawn at a quarter of
that: an object that fills a tenth of a photograph gets a few dozen pixels. The second pass encodes a square
twice as wide as the mask, prompts the decoder with the first mask, a box and the caller's points, and takes
the candidate that agrees best with the first mask. `python -m tools.training.refinement` measures the gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, PromptError
from ..imaging.metrics import iou
from ..imaging.preprocess import check_image
from ..imaging.rle import bbox
from ..types import Boxes, Masks, PointCoords, PointLabels, Prompts
from .segmenter import Segmenter

Floats = NDArray[np.float32]
Box = tuple[int, int, int, int]

# What measured best on generated scenes: `python -m tools.training.refinement` has the scenes.
MARGIN = 0.5  # around the mask, as a share of its longer side
MIN_CROP = 0.25  # of the model's input: a smaller crop would only be blown up
MAX_CROP = 0.8  # of the image's area: a larger crop shows the encoder little that is new
MIN_AGREEMENT = 0.2  # IoU of the two masks below which the second is another object's


@dataclass(frozen=True)
class RefinedMasks(Masks):
    """Masks after the second pass.

    Attributes:
        outcomes: for each prompt, for each mask: "refined"; or why the first mask was kept: "empty", it has
            no pixels; "whole image", the crop would be nearly that; "drifted", the second pass found another
            object.
    """

    outcomes: list[list[str]]


@dataclass(frozen=True)
class Refined:
    """One mask after the second pass: logits (H, W), the model's score for it, and the outcome as above."""

    logits: Floats
    score: float
    outcome: str


def refine(
    segmenter: Segmenter,
    image: NDArray[np.uint8],
    found: Masks,
    point_coords: PointCoords | None = None,
    point_labels: PointLabels | None = None,
    boxes: Boxes | None = None,
) -> RefinedMasks:
    """Refine each of the masks found in an image, at the cost of one more encoding for each.

    Args:
        segmenter: the model that found them.
        image: (H, W, 3) uint8 RGB, the image that was encoded.
        found: from `Sam.predict`: N prompts, M masks each.
        point_coords, point_labels, boxes: the N prompts, as they were given there; they help, but need not
            be given. Mask prompts and texts need not be given either: the masks carry them.

    Returns:
        masks, scores and low-resolution logits of the shapes and dtypes of `found`; those that were not
        refined are as they were.

    Raises:
        ImageError: not such an image, or of another size than the masks.
        PromptError: an invalid prompt, or another number of prompts.

    Example:
        found = sam.predict(embedding, boxes=[[10, 20, 80, 60]]).only_best()
        crisp = sam.refine(image, found, boxes=[[10, 20, 80, 60]]).masks
    """
    size = check_image(image).shape[0], image.shape[1]
    if found.masks.shape[-2:] != size:
        height, width = found.masks.shape[-2:]
        raise ImageError(
            f"the image is {size[1]} x {size[0]} and the masks are {width} x {height}; give the image that "
            "they were found in"
        )
    rules = segmenter.manifest
    if point_coords is not None or boxes is not None:
        segmenter._check_prompts(Prompts(point_coords, point_labels, boxes, inside=False), size)
    prompts = _split(point_coords, point_labels, boxes, len(found.masks))
    masks, scores, low_res = found.masks.copy(), found.scores.copy(), found.low_res_logits.copy()
    upscaling = segmenter._upscaling(size)
    outcomes = []
    for i, prompt in enumerate(prompts):
        row = []
        for j in range(masks.shape[1]):
            logits = upscaling.logits(found.low_res_logits[i : i + 1, j : j + 1])[0, 0]
            one = refine_mask(segmenter, image, logits, float(scores[i, j]), prompt)
            row.append(one.outcome)
            if one.outcome != "refined":
                continue
            masks[i, j] = one.logits > rules.mask_threshold if masks.dtype == bool else one.logits
            scores[i, j] = one.score
            low_res[i, j] = _limited(upscaling.downscale(one.logits), rules.low_res_limit)
        outcomes.append(row)
    return RefinedMasks(masks, scores, low_res, outcomes)


def refine_mask(
    segmenter: Segmenter, image: NDArray[np.uint8], logits: Floats, score: float, prompt: Prompts
) -> Refined:
    """Refine one mask.

    Args:
        segmenter: the model that found it.
        image: (H, W, 3) uint8 RGB.
        logits: (H, W) of the mask at the image's size.
        score: the model's score for it.
        prompt: of its points (K, 2), labels (K,) and box (4,), those that there are.
    """
    rules = segmenter.manifest
    first = logits > rules.mask_threshold
    if not first.any():
        return Refined(logits, score, "empty")
    x, y, width, height = bbox(first)
    around = x, y, x + width, y + height
    crop = crop_around(around, first.shape, MIN_CROP * max(rules.input.size))
    x0, y0, x1, y1 = crop
    if (x1 - x0) * (y1 - y0) > MAX_CROP * first.size:
        return Refined(logits, score, "whole image")
    inside = slice(y0, y1), slice(x0, x1)
    second = segmenter._segment(
        segmenter.encode(np.ascontiguousarray(image[inside])),
        _prompt_in_crop(segmenter, crop, around, logits[inside], prompt),
        return_logits=True,
    )
    agreement = [iou(mask, first[inside]) for mask in second.masks[0] > rules.mask_threshold]
    best = int(np.argmax(agreement))
    if agreement[best] < MIN_AGREEMENT:
        return Refined(logits, score, "drifted")
    pasted = logits.copy()
    pasted[inside] = second.masks[0, best]
    return Refined(pasted, float(second.scores[0, best]), "refined")


def _prompt_in_crop(segmenter: Segmenter, crop: Box, around: Box, logits: Floats, prompt: Prompts) -> Prompts:
    """Return the prompt of the second pass, in pixels of the crop: the first mask, its box or the caller's,
    and the caller's points inside."""
    rules = segmenter.manifest
    mask_input = None
    if rules.prompt.mask_prompt:
        low_res = segmenter._upscaling((logits.shape[0], logits.shape[1])).downscale(logits)
        mask_input = _limited(low_res, rules.low_res_limit)[None]
    points, labels = _points_in_crop(crop, prompt.point_coords, prompt.point_labels)
    corners = _box_in_crop(crop, around if prompt.boxes is None else prompt.boxes)
    if corners is None:
        corners = _box_in_crop(crop, around)
    most = rules.prompt.num_points
    if most is not None and points is not None and len(points) + 2 > most:
        corners = None
    return Prompts(points, labels, corners, mask_input)


def crop_around(box: Box, size: tuple[int, ...], min_side: float) -> Box:
    """Return the square around a box x0, y0, x1, y1 with `MARGIN`, of `min_side` pixels or more, moved into
    the image of `size` (H, W) and cut to it."""
    side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * MARGIN)
    corner, lengths = [], []
    for low, high, whole in ((box[0], box[2], size[1]), (box[1], box[3], size[0])):
        length = min(max(1, round(max(side, min_side))), whole)
        start = round((low + high - length) / 2)
        corner.append(min(max(start, 0), whole - length))
        lengths.append(length)
    return corner[0], corner[1], corner[0] + lengths[0], corner[1] + lengths[1]


def _points_in_crop(
    crop: Box, coords: PointCoords | None, labels: PointLabels | None
) -> tuple[Floats | None, Floats | None]:
    """Return the points inside the crop, in its pixels; None where there are none."""
    if coords is None:
        return None, None
    points = np.asarray(coords, np.float32).reshape(-1, 2) - np.array(crop[:2], np.float32)
    codes = np.ones(len(points), np.float32) if labels is None else np.asarray(labels, np.float32)
    size = np.array([crop[2] - crop[0], crop[3] - crop[1]])
    kept = (points >= 0).all(1) & (points < size).all(1) & (codes != -1)
    return (points[kept], codes[kept]) if kept.any() else (None, None)


def _box_in_crop(crop: Box, box: Any) -> Floats | None:
    """Return the part of the box inside the crop, in its pixels; None where there is none."""
    low, high = np.array(crop[:2]), np.array(crop[2:])
    corners = np.clip(np.asarray(box, np.float64).reshape(2, 2), low, high) - low
    return corners.astype(np.float32).ravel() if (corners[1] > corners[0]).all() else None


def _limited(logits: Floats, limit: float | None) -> Floats:
    return logits if limit is None else logits.clip(-limit, limit)


def _split(
    point_coords: PointCoords | None, point_labels: PointLabels | None, boxes: Boxes | None, n: int
) -> list[Prompts]:
    """Return each of `n` prompts alone."""
    parts = zip(
        _each(point_coords, 2, n, "point_coords"),
        _each(point_labels, 1, n, "point_labels"),
        _each(boxes, 1, n, "boxes"),
        strict=True,
    )
    return [Prompts(*part) for part in parts]


def _each(value: Any, depth: int, n: int, name: str) -> Sequence[Any]:
    """Return the part of `value` for each of `n` prompts: of `depth` axes each, or one prompt alone."""
    if value is None:
        return [None] * n
    parts = value if max((np.ndim(part) for part in value), default=0) == depth else [value]
    if len(parts) != n:
        raise PromptError(f"{name} is for {len(parts)} prompts and the masks for {n}; expected as many")
    return list(parts)
