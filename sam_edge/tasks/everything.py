"""Everything-mode: masks for a whole image from a grid of point prompts (Kirillov et al. 2023, appendix B).

What makes it fast does not change the masks: candidates below `pred_iou_thresh` are dropped before their
masks are computed where the decoder has separate stages, and before they are upscaled otherwise; masks are
upscaled only where they can be, band by band, and only those that are kept are stored at the image's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError
from ..imaging import rle
from ..imaging.preprocess import check_image
from ..imaging.regions import remove_small_regions
from ..types import MaskRecord, OutputMode
from .amg import (
    Floats,
    box_areas,
    build_all_layer_point_grids,
    generate_crop_boxes,
    is_box_near_crop_edge,
    mask_to_box,
    nms,
)
from .segmenter import Segmenter

OUTPUT_MODES = get_args(OutputMode)
POINTS_PER_SIDE = 32
MAX_POINTS_PER_SIDE = 1024
MAX_CROP_LAYERS = 8


@dataclass(frozen=True)
class EverythingOptions:
    """What to look for, and which masks to keep.

    Attributes:
        point_grids: (N, 2) points in [0, 1], x and y, one grid for the image and one for each layer of crops.
        points_per_batch: points whose low-resolution masks are held at once.
        pred_iou_thresh: masks with a predicted IoU at or below it are dropped; 0 keeps all.
        stability_score_thresh: masks with a stability score below it are dropped; 0 keeps all.
        stability_score_offset: by how much the threshold, in logits, is raised and lowered for that score.
        box_nms_thresh: of two masks whose boxes have a higher IoU only the better one is kept.
        crop_n_layers: layers of crops to run as well, 2 ** i by 2 ** i crops in layer i.
        crop_nms_thresh: as `box_nms_thresh`, between crops.
        crop_overlap_ratio: how much crops overlap, as a share of the image's short side.
        min_mask_region_area: holes and islands of fewer pixels are removed.
        output_mode: how masks are returned: "binary_mask", "uncompressed_rle" or "coco_rle".

    Raises:
        PromptError: options that contradict each other.
    """

    point_grids: Sequence[Floats] = field(
        default_factory=lambda: build_all_layer_point_grids(POINTS_PER_SIDE, 0, 1)
    )
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    min_mask_region_area: int = 0
    output_mode: OutputMode = "binary_mask"

    def __post_init__(self) -> None:
        if self.output_mode not in OUTPUT_MODES:
            raise PromptError(f"unknown output_mode {self.output_mode!r}; expected one of {OUTPUT_MODES}")
        if self.points_per_batch < 1:
            raise PromptError(f"points_per_batch is {self.points_per_batch}; expected 1 or more")
        if self.crop_n_layers < 0:
            raise PromptError(f"crop_n_layers is {self.crop_n_layers}; expected 0 or more")
        if len(self.point_grids) <= self.crop_n_layers:
            raise PromptError(
                f"point_grids has {len(self.point_grids)} grids; expected one for the image and one for each "
                f"of {self.crop_n_layers} layers of crops"
            )


def choose_point_grids(
    points_per_side: int | None,
    point_grids: Sequence[NDArray[Any]] | None,
    crop_n_layers: int,
    crop_n_points_downscale_factor: int,
) -> list[Floats]:
    """Return the grids that were given, or regular ones.

    Args:
        points_per_side: points along one side of the image's grid; None where `point_grids` is given.
        point_grids: one (N, 2) grid in [0, 1] for each layer; None where `points_per_side` is given.
        crop_n_layers: layers of crops.
        crop_n_points_downscale_factor: in layer i, points per side are divided by this to the power i.

    Raises:
        PromptError: both or none are given, or there would be no points or too many.
    """
    if (points_per_side is None) == (point_grids is None):
        raise PromptError("give exactly one of points_per_side and point_grids")
    if crop_n_points_downscale_factor < 1:
        raise PromptError(
            f"crop_n_points_downscale_factor is {crop_n_points_downscale_factor}; expected 1 or more"
        )
    if points_per_side is None:
        return [np.asarray(grid, np.float64) for grid in point_grids or []]
    if crop_n_layers < 0:
        raise PromptError(f"crop_n_layers is {crop_n_layers}; expected 0 or more")
    if points_per_side > MAX_POINTS_PER_SIDE or crop_n_layers > MAX_CROP_LAYERS:
        raise PromptError(
            f"points_per_side is {points_per_side} and crop_n_layers {crop_n_layers}; expected at most "
            f"{MAX_POINTS_PER_SIDE} and {MAX_CROP_LAYERS}"
        )
    fewest = points_per_side // crop_n_points_downscale_factor**crop_n_layers
    if fewest < 1:
        raise PromptError(f"points_per_side (in the last layer) is {fewest}; expected 1 or more")
    return build_all_layer_point_grids(points_per_side, crop_n_layers, crop_n_points_downscale_factor)


def generate_masks(
    segmenter: Segmenter,
    image: NDArray[np.uint8],
    options: EverythingOptions,
    progress: Callable[[int, int], None] | None = None,
) -> list[MaskRecord]:
    """Return masks of everything in an image, the best-scored of the whole image first.

    Args:
        segmenter: the model.
        image: (H, W, 3) uint8 RGB.
        options: what to look for.
        progress: called with the number of points that are done, and of all points.

    Raises:
        ImageError: not such an image.
    """
    image = check_image(image)
    size = image.shape[0], image.shape[1]
    crop_boxes, layers = generate_crop_boxes(size, options.crop_n_layers, options.crop_overlap_ratio)
    found: list[_Found] = []
    done, total = 0, sum(len(options.point_grids[layer]) for layer in layers)
    for crop_box, layer in zip(crop_boxes, layers, strict=True):

        def advance(points: int, before: int = done) -> None:
            if progress is not None:
                progress(before + points, total)

        found += _masks_of_crop(segmenter, image, crop_box, options.point_grids[layer], options, advance)
        done += len(options.point_grids[layer])
    if len(crop_boxes) > 1 and found:
        # Masks from smaller crops are preferred.
        scores = 1 / box_areas(np.array([one.crop_box for one in found]))
        boxes = np.stack([one.box for one in found])
        found = [found[i] for i in nms(boxes, scores, options.crop_nms_thresh)]
    rles = [one.rle(size) for one in found]
    if options.min_mask_region_area > 0 and found:
        found, rles = _without_small_regions(found, rles, options)
    return [_record(one, counts, options.output_mode) for one, counts in zip(found, rles, strict=True)]


@dataclass
class _Found:
    """One mask, in pixels of the image; `bits` are those of the window `shape` whose corner is `corner`."""

    box: NDArray[np.int64]
    score: float
    stability: float
    point: NDArray[np.float64]
    crop_box: list[int]
    corner: tuple[int, int]
    shape: tuple[int, int]
    bits: NDArray[np.uint8]

    def rle(self, size: tuple[int, int]) -> dict[str, Any]:
        """Return it uncompressed, in an image of `size` (H, W)."""
        window = np.unpackbits(self.bits, count=self.shape[0] * self.shape[1]).reshape(self.shape)
        return rle.encode_uncompressed(window.astype(bool), *self.corner, size)


def _masks_of_crop(
    segmenter: Segmenter,
    image: NDArray[np.uint8],
    crop_box: list[int],
    grid: Floats,
    options: EverythingOptions,
    advance: Callable[[int], None],
) -> list[_Found]:
    """Return the masks of one crop without duplicates, in pixels of the image."""
    x0, y0, x1, y1 = crop_box
    embedding = segmenter.encode(np.ascontiguousarray(image[y0:y1, x0:x1]))
    points = grid * np.array([[x1 - x0, y1 - y0]])
    upscaling, threshold = segmenter._upscaling(embedding.original_size), segmenter.manifest.mask_threshold
    found = []
    for start in range(0, len(points), options.points_per_batch):
        batch = points[start : start + options.points_per_batch]
        for n, _, score, low_res in segmenter._candidates(embedding, batch, options.pred_iou_thresh):
            window = upscaling.window(low_res, threshold, options.stability_score_offset)
            stability = window.stability_score
            if options.stability_score_thresh > 0 and not stability >= options.stability_score_thresh:
                continue
            corner = y0 + window.top, x0 + window.left
            box = mask_to_box(window.mask)
            box += np.array([window.left, window.top] * 2) if window.mask.any() else 0
            box += np.array([x0, y0] * 2)
            if is_box_near_crop_edge(box, crop_box, (image.shape[0], image.shape[1])):
                continue
            bits, shape = np.packbits(window.mask), (window.mask.shape[0], window.mask.shape[1])
            at = batch[n] + np.array([x0, y0])
            found.append(_Found(box, score, stability, at, crop_box, corner, shape, bits))
        advance(start + len(batch))
    if not found:
        return []
    boxes, best = np.stack([one.box for one in found]), np.array([one.score for one in found])
    return [found[i] for i in nms(boxes, best, options.box_nms_thresh)]


def _without_small_regions(
    found: list[_Found], rles: list[dict[str, Any]], options: EverythingOptions
) -> tuple[list[_Found], list[dict[str, Any]]]:
    """Remove small holes and islands, then the duplicates that this makes."""
    boxes, unchanged, cleaned = [], [], []
    for counts in rles:
        mask, filled = remove_small_regions(rle.decode(counts), options.min_mask_region_area, "holes")
        mask, removed = remove_small_regions(mask, options.min_mask_region_area, "islands")
        boxes.append(mask_to_box(mask))
        unchanged.append(float(not (filled or removed)))
        cleaned.append(rle.encode_uncompressed(mask) if filled or removed else counts)
    threshold = max(options.box_nms_thresh, options.crop_nms_thresh)
    kept = nms(np.stack(boxes), np.array(unchanged), threshold)
    for i in kept:
        found[i].box = boxes[i] if not unchanged[i] else found[i].box
    return [found[i] for i in kept], [cleaned[i] for i in kept]


def _record(one: _Found, counts: dict[str, Any], output_mode: OutputMode) -> MaskRecord:
    segmentation: Any = counts
    if output_mode == "binary_mask":
        segmentation = rle.decode(counts)
    elif output_mode == "coco_rle":
        segmentation = rle.compress(counts)
    return {
        "segmentation": segmentation,
        "area": rle.area(counts),
        "bbox": _xywh(one.box.tolist()),
        "predicted_iou": one.score,
        "point_coords": [one.point.tolist()],
        "stability_score": one.stability,
        "crop_box": _xywh(one.crop_box),
    }


def _xywh(box: list[int]) -> list[int]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]
