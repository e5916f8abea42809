"""Check prompts and bring them into the decoder's coordinates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import Manifest, PromptRules
from ..errors import PromptError
from ..imaging.preprocess import resized_size as resize_to
from ..types import Prompts

Floats = NDArray[np.float32]

# The label of unused slots of a decoder that takes a fixed number of points. Unlike padding points, -1, they
# are masked out of attention.
ABSENT = -2


class EncodedPrompts(NamedTuple):
    """The decoder's inputs for N prompts of K points each.

    Attributes:
        coords: (N, K, 2) float32 in pixels of the coordinate square: the points, then the two corners of the
            box, then padding points as the model requires them.
        labels: (N, K) float32; 2 and 3 are corners, -1 is padding.
        mask_input: (N, 1, h, w) float32, or None.
        text_embeddings: (N, T, dim) float32, or None.
    """

    coords: Floats
    labels: Floats
    mask_input: Floats | None
    text_embeddings: Floats | None


def by_point_count(prompts: Prompts) -> list[tuple[NDArray[np.intp], Prompts]]:
    """Group prompts by their number of points; return each group's indices and prompts.

    Padding them all to one number would change their masks: padding points take part in attention.

    Raises:
        PromptError: lists of different lengths.
    """
    coords: Any = prompts.point_coords
    labels: Any = prompts.point_labels
    if not _is_ragged(coords):
        return [(np.arange(1), prompts)]
    n = len(coords)
    rest: dict[str, Any] = {
        "point_labels": labels,
        "boxes": prompts.boxes,
        "mask_input": prompts.mask_input,
        "text_embeddings": prompts.text_embeddings,
    }
    for name, value in rest.items():
        if value is not None and len(value) != n:
            raise PromptError(f"{name} has {len(value)} entries and point_coords {n}; expected as many")
    if labels is not None:
        for i, (points, codes) in enumerate(zip(coords, labels, strict=True)):
            if len(points) != len(codes):
                raise PromptError(
                    f"prompt {i} has {len(points)} points and {len(codes)} labels; expected one label a point"
                )
    counts = np.array([len(points) for points in coords])
    groups = []
    for count in np.unique(counts):
        indices = np.flatnonzero(counts == count)
        has_points = count > 0
        group = Prompts(
            [coords[i] for i in indices] if has_points else None,
            [labels[i] for i in indices] if has_points and labels is not None else None,
            None if prompts.boxes is None else np.asarray(prompts.boxes)[indices],
            None if prompts.mask_input is None else np.asarray(prompts.mask_input)[indices],
            prompts.inside,
            None if prompts.text_embeddings is None else np.asarray(prompts.text_embeddings)[indices],
        )
        groups.append((indices, group))
    return groups


def _is_ragged(coords: Any) -> bool:
    """Tell whether `coords` is a list of prompts that differ in their number of points."""
    if not isinstance(coords, (list, tuple)):
        return False
    try:
        counts = {len(points) for points in coords}
    except TypeError:
        return False
    return len(counts) > 1 or counts == {0}


def _numbers(value: Any, what: str, shapes: str) -> Floats:
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise PromptError(f"{what} should be numbers of shape {shapes}: {error}") from error
    if not np.isfinite(array).all():
        raise PromptError(f"{what} holds NaN or infinity; expected finite numbers")
    return array


def _points(
    point_coords: Any, point_labels: Any, original_size: tuple[int, int], inside: bool
) -> tuple[Floats, Floats]:
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
    unknown = labels[~np.isin(labels, (-1, 0, 1))]
    if unknown.size:
        raise PromptError(
            f"point label {unknown[0]:g} is unknown; expected 1 for foreground, 0 for background, or "
            "-1 for padding"
        )
    height, width = original_size
    outside = (coords < 0).any(2) | (coords[..., 0] >= width) | (coords[..., 1] >= height)
    outside &= labels != -1
    if inside and outside.any():
        x, y = coords[outside][0]
        raise PromptError(
            f"point ({x:g}, {y:g}) is outside the image; expected 0 <= x < {width} and "
            f"0 <= y < {height}, in pixels of the original image"
        )
    return coords, labels


def _boxes(boxes: Any, original_size: tuple[int, int], inside: bool) -> Floats:
    array = _numbers(boxes, "boxes", "(4,) or (N, 4)")
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] != 4 or 0 in array.shape:
        raise PromptError(f"boxes has shape {array.shape}; expected (4,) or (N, 4): x0, y0, x1, y1")
    height, width = original_size
    for x0, y0, x1, y1 in array.tolist() if inside else []:
        name = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if x1 <= x0 or y1 <= y0:
            raise PromptError(f"{name} is empty; expected x0 < x1 and y0 < y1")
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            raise PromptError(
                f"{name} is outside the image; expected 0 <= x <= {width} and 0 <= y <= {height}, in "
                "pixels of the original image"
            )
    return array


def _mask_input(mask_input: Any, size: tuple[int, int]) -> Floats:
    try:
        array = np.asarray(mask_input, np.float32)
    except (TypeError, ValueError) as error:
        raise PromptError(f"mask_input should be numbers of shape (1, h, w): {error}") from error
    array = array[None] if array.ndim == 3 else array
    h, w = size
    if array.ndim != 4 or array.shape[1:] != (1, h, w) or not np.isfinite(array).all():
        raise PromptError(
            f"mask_input has shape {array.shape}; expected finite low-resolution logits "
            f"(1, {h}, {w}) or (N, 1, {h}, {w})"
        )
    return array


def _texts(text_embeddings: Any) -> Floats:
    array = _numbers(text_embeddings, "text_embeddings", "(T, dim) or (N, T, dim)")
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape:
        raise PromptError(f"text_embeddings has shape {array.shape}; expected (T, dim) or (N, T, dim)")
    return array


def encode_prompts(
    prompts: Prompts,
    original_size: tuple[int, int],
    resized_size: tuple[int, int],
    rules: PromptRules,
    mask_size: tuple[int, int],
) -> EncodedPrompts:
    """Check prompts in pixels of the original image, and bring them into the decoder's coordinates.

    Args:
        prompts: with the same number of points each.
        original_size: (H, W) of the image.
        resized_size: (H, W) of the image inside the coordinate square.
        rules: how prompts are given to the decoder.
        mask_size: (h, w) of low-resolution logits.

    Raises:
        PromptError: says which number is wrong and what was expected.
    """
    given = None if prompts.mask_input is None else _mask_input(prompts.mask_input, mask_size)
    if given is not None and not rules.mask_prompt:
        raise PromptError("this model takes no mask as a prompt; give it points, or a box")
    texts = None if prompts.text_embeddings is None else _texts(prompts.text_embeddings)
    if texts is not None and not rules.text_embeddings:
        raise PromptError(
            "this bundle's decoder takes no text embeddings; export it again with --text-embeddings (words "
            "are for predict_text)"
        )
    others = [len(one) for one in (given, texts) if one is not None]
    parts = _points_and_corners(prompts, original_size, bool(others))
    if not parts and not others:
        raise PromptError("no prompt was given; give a point, a box or a mask")
    counts = [len(coords) for coords, _ in parts] + others
    if len(set(counts)) > 1:
        raise PromptError(
            f"points, boxes, masks and texts are for different numbers of prompts ({counts}); expected the "
            "same number of each"
        )
    points = sum(coords.shape[1] for coords, _ in parts)
    padding = _padding_count(points, prompts.boxes is not None, rules)
    parts.append(
        (np.zeros((counts[0], padding, 2), np.float32), np.full((counts[0], padding), -1, np.float32))
    )
    coords = np.concatenate([c for c, _ in parts], axis=1)
    labels = np.concatenate([label for _, label in parts], axis=1)
    scale = [resized_size[axis] / original_size[axis] for axis in (1, 0)]
    return EncodedPrompts(coords * np.array(scale, np.float32), labels, given, texts)


def check_prompts(
    prompts: Prompts, original_size: tuple[int, int], manifest: Manifest
) -> list[EncodedPrompts]:
    """Check prompts for an image of `original_size` (H, W); return them encoded, one group for each number
    of points.

    Raises:
        PromptError: says which number is wrong and what was expected.
    """
    resized = resize_to(original_size, manifest.coordinate_space)
    return [
        encode_prompts(group, original_size, resized, manifest.prompt, manifest.mask_size)
        for _, group in by_point_count(prompts)
    ]


def _points_and_corners(
    prompts: Prompts, original_size: tuple[int, int], has_others: bool
) -> list[tuple[Floats, Floats]]:
    """Return coordinates (N, K, 2) and labels (N, K) of the points, then of the boxes' corners (labels 2 and
    3), of those that there are."""
    points, labels, boxes = prompts.point_coords, prompts.point_labels, prompts.boxes
    if points is None and labels is not None:
        raise PromptError("point_labels were given without point_coords; give both")
    parts: list[tuple[Floats, Floats]] = []
    if points is not None:
        parts.append(_points(points, labels, original_size, prompts.inside))
        if boxes is None and not has_others and (parts[0][1] == -1).all(axis=1).any():
            raise PromptError("a prompt has only padding points (label -1); give it a point, a box or a mask")
    if boxes is not None:
        corners = _boxes(boxes, original_size, prompts.inside).reshape(-1, 2, 2)
        parts.append((corners, np.tile(np.array([2, 3], np.float32), (len(corners), 1))))
    return parts


def _padding_count(points: int, has_boxes: bool, rules: PromptRules) -> int:
    """Return how many padding points a prompt of `points` points, box corners included, gets."""
    if rules.num_points is None:
        return int(not has_boxes or rules.padding_point == "always")
    if points > rules.num_points:
        raise PromptError(
            f"a prompt has {points} points, box corners included; this model takes at most {rules.num_points}"
        )
    return rules.num_points - points


def fill_up(coords: Floats, labels: Floats, count: int) -> tuple[Floats, Floats]:
    """Append absent points to `point_coords` (N, K, 2) and `point_labels` (N, K), up to `count` in all.

    Raises:
        PromptError: there are more.
    """
    missing = count - coords.shape[1]
    if missing < 0:
        raise PromptError(
            f"a prompt has {coords.shape[1]} points, box corners and padding included; this variant takes at "
            f"most {count}; give it fewer, or load another variant"
        )
    n = len(coords)
    absent = np.zeros((n, missing, 2), np.float32), np.full((n, missing), ABSENT, np.float32)
    return np.concatenate([coords, absent[0]], axis=1), np.concatenate([labels, absent[1]], axis=1)
