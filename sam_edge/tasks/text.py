"""Segmentation by text: everything-mode's masks, ranked by the cosine similarity of CLIP's features.

CLIP gets a square around each mask, half as wide again as the mask (SAM's own text training crops between
once and twice the box: Kirillov et al. 2023, appendix D.5), blurred outside the mask: the way to point CLIP
at a region that Yang et al. 2023 ("Fine-Grained Visual Prompting") found best, with the crop of Subramanian
et al. 2022 ("ReCLIP"). A cut-out on a plain background is less like the images that CLIP was trained on
(Liang et al. 2023, "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError
from ..imaging import rle
from ..imaging.preprocess import check_image
from ..imaging.resample import resize_bicubic
from ..types import MaskRecord
from .clip import BATCH, Clip, normalise
from .everything import EverythingOptions, generate_masks
from .segmenter import Segmenter

# Side of the crop, in longer sides of the mask's box.
CONTEXT = 1.5
# Radius of the box blur, as a share of the crop's side: three of them are a Gaussian of a sixteenth of it.
_BLUR = 1 / 16


@dataclass(frozen=True)
class TextMasks:
    """The masks that match a text best, the best first.

    Attributes:
        masks: (N, H, W) bool at the image's size.
        scores: (N,) float32, cosine similarity of mask and text, -1 to 1. CLIP's are small, 0.2 to 0.35 for a
            good match; their order matters more than their values.
        probabilities: (N,) float32: softmax of the scores, times CLIP's logit scale, over all of the image's
            masks, including those left out.
        boxes: (N, 4) float32 x, y, width, height in pixels.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    boxes: NDArray[np.float32]


def predict_text(
    segmenter: Segmenter,
    image: NDArray[np.uint8],
    text: str,
    top_k: int | None = 1,
    threshold: float | None = None,
    *,
    templates: Sequence[str] = ("{}",),
    masks: Sequence[MaskRecord] | None = None,
) -> TextMasks:
    """Return the masks of an image that match a text best.

    Args:
        segmenter: loaded from a bundle that was exported with `--clip`.
        image: (H, W, 3) uint8 RGB.
        text: what to find, such as "a dog".
        top_k: how many masks at most; None for all.
        threshold: masks with a lower score are left out.
        templates: sentences with {} for the text, such as "a photo of {}."; their features are averaged
            (Radford et al. 2021, section 3.1.4).
        masks: what `SamAutomaticMaskGenerator.generate` found in this image, with masks as arrays; None to
            run it with its defaults and the model's thresholds.

    Raises:
        PromptError: no text, or another invalid argument.
        ImageError: not such an image.
        BundleError: the bundle has no CLIP; the message says how to export it.
        BackendError: the `tokenizers` package (extra "text") is not installed.

    Example:
        found = sam.predict_text(image, "a dog", top_k=3)
        mask, score = found.masks[0], found.scores[0]
    """
    image = check_image(image)
    _check(text, top_k, threshold, templates)
    clip = segmenter.clip
    query = text_features(clip, text, templates)
    if masks is None:
        rules = segmenter.manifest
        options = EverythingOptions(
            pred_iou_thresh=rules.pred_iou_thresh, stability_score_thresh=rules.stability_score_thresh
        )
        masks = generate_masks(segmenter, image, options)
    found = _segmentations(masks, image.shape[:2])
    scores = mask_features(clip, image, found) @ query
    logits = clip.rules.logit_scale * scores
    shares = np.exp(logits - logits.max(initial=-np.inf))
    shares /= max(shares.sum(), 1e-30)
    order = np.argsort(-scores, kind="stable")
    if threshold is not None:
        order = order[scores[order] >= threshold]
    order = order[:top_k]
    kept = np.array([found[i] for i in order], bool).reshape(-1, *image.shape[:2])
    boxes = np.array([rle.bbox(mask) for mask in kept], np.float32).reshape(-1, 4)
    return TextMasks(kept, scores[order], shares[order].astype(np.float32), boxes)


def text_features(clip: Clip, text: str, templates: Sequence[str] = ("{}",)) -> NDArray[np.float32]:
    """Return the feature of a text, the mean over the templates: (embed_dim,) of length 1."""
    features = clip.encode_text([template.replace("{}", text) for template in templates])
    mean: NDArray[np.float32] = normalise(features.mean(0, keepdims=True))[0]
    return mean


def mask_features(
    clip: Clip, image: NDArray[np.uint8], masks: Sequence[NDArray[np.bool_]]
) -> NDArray[np.float32]:
    """Return the features of N masks (H, W) bool of an image (H, W, 3) uint8 RGB, to compare with many texts:
    (N, embed_dim) of length 1."""
    side, grey = clip.rules.image_size, np.array(clip.rules.mean, np.float32)
    found = [np.zeros((0, clip.rules.embed_dim), np.float32)]
    for start in range(0, len(masks), BATCH):
        crops = [mask_crop(image, mask, side, grey) for mask in masks[start : start + BATCH]]
        found.append(clip.encode_images(crops))
    return np.concatenate(found)


def mask_crop(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    side: int,
    grey: NDArray[np.float32],
    context: float = CONTEXT,
) -> NDArray[np.uint8]:
    """Return CLIP's input for a mask, the square around it, blurred outside the mask: (side, side, 3) uint8.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool.
        side: of the result, in pixels.
        grey: (3,) RGB that fills the part outside the image.
        context: side of the square, in longer sides of the mask's box.
    """
    x, y, w, h = rle.bbox(mask)
    square = max(1, round(context * max(w, h)))
    rows, down = _place(y, h, mask.shape[0], square, side)
    columns, across = _place(x, w, mask.shape[1], square, side)
    size = down.stop - down.start, across.stop - across.start
    crop, share = np.empty((side, side, 3), np.float32), np.zeros((side, side, 1), np.float32)
    crop[:] = grey
    crop[down, across] = resize_bicubic(np.ascontiguousarray(image[rows, columns]), size)
    shown = mask[rows, columns, None].astype(np.uint8) * np.uint8(255)
    share[down, across] = resize_bicubic(shown, size) / np.float32(255)
    mixed = share * crop + (1 - share) * _blurred(crop, max(1, round(side * _BLUR)))
    return np.rint(mixed).astype(np.uint8)


def _place(at: int, size: int, length: int, square: int, side: int) -> tuple[slice, slice]:
    """Return, along one axis, the part of the image that the square covers, and its place in the crop.

    The square is moved into the image where it fits, and centred on it where it does not.
    """
    start = (length - square) // 2
    if square <= length:
        start = min(max(round(at + size / 2 - square / 2), 0), length - square)
    first, last = max(start, 0), min(start + square, length)
    to = round((first - start) * side / square)
    return slice(first, last), slice(to, max(round((last - start) * side / square), to + 1))


def _blurred(image: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Blur (H, W, C) three times with a box, which is nearly a Gaussian; edges are repeated."""
    for axis in (0, 1):
        for _ in range(3):
            padding = [(0, 0)] * 3
            padding[axis] = (radius + 1, radius)
            sums = np.cumsum(np.pad(image, padding, mode="edge"), axis=axis, dtype=np.float64)
            after, before = (
                np.moveaxis(sums, axis, 0)[part]
                for part in (slice(2 * radius + 1, None), slice(0, -2 * radius - 1))
            )
            image = np.moveaxis((after - before) / (2 * radius + 1), 0, axis).astype(np.float32)
    return image


def _segmentations(masks: Sequence[MaskRecord], size: tuple[int, ...]) -> list[NDArray[np.bool_]]:
    """Return the masks of everything-mode's records, (H, W) each."""
    found = [record["segmentation"] for record in masks]
    for one in found:
        if not isinstance(one, np.ndarray) or one.shape != size or one.dtype != bool:
            what = f"{one.dtype} {one.shape}" if isinstance(one, np.ndarray) else type(one).__name__
            raise PromptError(
                f"a mask's segmentation is {what}; expected bool {size}, as the generator makes with "
                'output_mode="binary_mask" on this image'
            )
    return found


def _check(text: Any, top_k: Any, threshold: Any, templates: Any) -> None:
    if not isinstance(text, str) or not text.strip():
        raise PromptError(f"the text is {text!r:.60}; expected some words, such as 'a dog'")
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise PromptError(f"top_k is {top_k!r}; expected 1 or more, or None for all")
    if threshold is not None and not (isinstance(threshold, int | float) and np.isfinite(threshold)):
        raise PromptError(f"threshold is {threshold!r}; expected a number from -1 to 1")
    listed = isinstance(templates, Sequence) and not isinstance(templates, str) and len(templates) > 0
    if not listed or not all(isinstance(one, str) and "{}" in one for one in templates):
        raise PromptError(
            f"templates are {templates!r:.60}; expected texts with {{}}, such as ['a photo of {{}}.']"
        )
