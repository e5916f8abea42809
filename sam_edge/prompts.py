"""Check prompts and bring them into the decoder's coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import PromptError
from .manifest import PromptRules

Floats = NDArray[np.float32]


def _numbers(value: Any, what: str, shapes: str) -> Floats:
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise PromptError(f"{what} should be numbers of shape {shapes}: {error}") from error
    if not np.isfinite(array).all():
        raise PromptError(f"{what} holds NaN or infinity; expected finite numbers")
    return array


def _points(point_coords: Any, point_labels: Any, original_size: tuple[int, int]) -> tuple[Floats, Floats]:
    coords = _numbers(point_coords, "point_coords", "(K, 2) or (N, K, 2)")
    if coords.ndim == 2:
        coords = coords[None]
    if coords.ndim != 3 or coords.shape[2] != 2 or 0 in coords.shape:
        raise PromptError(f"point_coords has shape {coords.shape}; expected (K, 2) or (N, K, 2)")
    if point_labels is None:
        labels = np.ones(coords.shape[:2], np.float32)
    else:
        labels = _numbers(point_labels, "point_labels", "(K,) or (N, K)")
        labels = labels[None] if labels.ndim == 1 else labels
    if labels.shape != coords.shape[:2]:
        raise PromptError(
            f"point_labels has shape {labels.shape}; expected one label a point, {coords.shape[:2]}"
        )
    strange = labels[~np.isin(labels, (-1, 0, 1))]
    if strange.size:
        raise PromptError(
            f"point label {strange[0]:g} is unknown; expected 1 for foreground, 0 for background, or "
            "-1 for padding"
        )
    height, width = original_size
    outside = (coords < 0).any(2) | (coords[..., 0] >= width) | (coords[..., 1] >= height)
    outside &= labels != -1
    if outside.any():
        x, y = coords[outside][0]
        raise PromptError(
            f"point ({x:g}, {y:g}) is outside the image; expected 0 <= x < {width} and "
            f"0 <= y < {height}, in pixels of the original image"
        )
    return coords, labels


def _boxes(boxes: Any, original_size: tuple[int, int]) -> Floats:
    array = _numbers(boxes, "boxes", "(4,) or (N, 4)")
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] != 4 or 0 in array.shape:
        raise PromptError(f"boxes has shape {array.shape}; expected (4,) or (N, 4): x0, y0, x1, y1")
    height, width = original_size
    for x0, y0, x1, y1 in array.tolist():
        name = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if x1 <= x0 or y1 <= y0:
            raise PromptError(f"{name} is empty; expected x0 < x1 and y0 < y1")
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            raise PromptError(
                f"{name} is outside the image; expected 0 <= x <= {width} and 0 <= y <= {height}, in "
                "pixels of the original image"
            )
    return array


def encode_prompts(
    point_coords: Any,
    point_labels: Any,
    boxes: Any,
    original_size: tuple[int, int],
    resized_size: tuple[int, int],
    rules: PromptRules,
    prompts_from_masks: int = 0,
) -> tuple[Floats, Floats]:
    """Prompts in pixels of the original image -> the decoder's `point_coords`, `point_labels`.

    Args:
        point_coords: (K, 2) for one prompt or (N, K, 2) for N: x, y; None for no points.
        point_labels: (K,) or (N, K): 1 foreground, 0 background, -1 padding; None: all foreground.
        boxes: (4,) or (N, 4): x0, y0, x1, y1; None for no boxes. A prompt may have both.
        original_size: (H, W) of the image.
        resized_size: (H, W) of the image inside the coordinate square.
        rules: how the model wants its prompts.
        prompts_from_masks: how many mask prompts come along; they may stand alone.

    Returns:
        coords (N, K', 2) in pixels of the coordinate square and labels (N, K'), float32: the points, then
        the two corners of the box (labels 2 and 3), then padding points as the rules want them.

    Raises:
        PromptError: says which number is wrong and what was expected.
    """
    if prompts_from_masks and not rules.mask_prompt:
        raise PromptError("this model takes no mask as a prompt; give it points, or a box")
    if point_coords is None and point_labels is not None:
        raise PromptError("point_labels were given without point_coords; give both")
    parts: list[tuple[Floats, Floats]] = []
    if point_coords is not None:
        parts.append(_points(point_coords, point_labels, original_size))
        if boxes is None and not prompts_from_masks and (parts[0][1] == -1).all(axis=1).any():
            raise PromptError("a prompt has only padding points (label -1); give it a point, a box or a mask")
    if boxes is not None:
        corners = _boxes(boxes, original_size).reshape(-1, 2, 2)
        parts.append((corners, np.tile(np.array([2, 3], np.float32), (len(corners), 1))))
    if not parts and not prompts_from_masks:
        raise PromptError("no prompt was given; give a point, a box or a mask")
    counts = [len(coords) for coords, _ in parts] + [prompts_from_masks] * bool(prompts_from_masks)
    if len(set(counts)) > 1:
        raise PromptError(
            f"points, boxes and masks are for different numbers of prompts ({counts}); expected the "
            "same number of each"
        )
    count = sum(coords.shape[1] for coords, _ in parts)
    if rules.num_points is not None:
        if count > rules.num_points:
            raise PromptError(
                f"a prompt has {count} points, box corners included; this model takes at most "
                f"{rules.num_points}"
            )
        padding = rules.num_points - count
    else:
        padding = int(boxes is None or rules.padding_point == "always")
    parts.append(
        (np.zeros((counts[0], padding, 2), np.float32), np.full((counts[0], padding), -1, np.float32))
    )
    coords = np.concatenate([c for c, _ in parts], axis=1)
    labels = np.concatenate([label for _, label in parts], axis=1)
    scale = [resized_size[axis] / original_size[axis] for axis in (1, 0)]
    return coords * np.array(scale, np.float32), labels
