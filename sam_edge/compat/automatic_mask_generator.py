"""Masks for everything in an image: `SamAutomaticMaskGenerator`, as in `segment_anything`, in NumPy.

Kirillov et al. 2023, appendix B. What makes it fast gives the same masks: candidates below
`pred_iou_thresh` are dropped before they are drawn where the decoder knows scores first, and before they are
upscaled anyhow; the others are computed only where they can be, band by band, and only masks that survive
are kept at the image's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError
from ..imaging import rle
from ..imaging.preprocess import check_image
from ..imaging.regions import remove_small_regions
from ..runtime.sam import Sam
from ..tasks.amg import (
    box_areas,
    build_all_layer_point_grids,
    generate_crop_boxes,
    is_box_near_crop_edge,
    mask_to_box,
    nms,
)

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


@dataclass
class _Candidate:
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
        """Uncompressed, in an image of `size` (H, W)."""
        window = np.unpackbits(self.bits, count=self.shape[0] * self.shape[1]).reshape(self.shape)
        return rle.encode_uncompressed(window.astype(bool), *self.corner, size)


class SamAutomaticMaskGenerator:
    """Generates masks for a whole image from a grid of point prompts.

    Args:
        model: from `sam_edge.load`.
        points_per_side: points along one side of the grid; None if `point_grids` is given.
        points_per_batch: points whose low-resolution masks are held at once.
        pred_iou_thresh: masks with a predicted IoU at or below it are dropped; 0 keeps all.
        stability_score_thresh: as well, by the IoU of the mask at a raised and a lowered threshold.
        stability_score_offset: by how much that threshold, in logits, is raised and lowered.
        box_nms_thresh: of two masks whose boxes have a higher IoU only the better one is kept.
        crop_n_layers: layers of crops to run as well, 2 ** i by 2 ** i crops in layer i.
        crop_nms_thresh: as `box_nms_thresh`, between crops.
        crop_overlap_ratio: how much crops overlap, as a share of the image's short side.
        crop_n_points_downscale_factor: in layer i, points per side are divided by this to the power i.
        point_grids: one (N, 2) grid in [0, 1] for each layer, instead of `points_per_side`.
        min_mask_region_area: holes and islands smaller than this, in pixels, are removed.
        output_mode: "binary_mask", "uncompressed_rle" or "coco_rle".

    Raises:
        PromptError: arguments that contradict each other.
    """

    def __init__(
        self,
        model: Sam,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[NDArray[np.float64]] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
    ) -> None:
        if (points_per_side is None) == (point_grids is None):
            raise PromptError("give exactly one of points_per_side and point_grids")
        if output_mode not in OUTPUT_MODES:
            raise PromptError(f"unknown output_mode {output_mode!r}; expected one of {OUTPUT_MODES}")
        numbers = {
            "points_per_batch": points_per_batch,
            "crop_n_points_downscale_factor": crop_n_points_downscale_factor,
        }
        if points_per_side is not None:
            smallest = points_per_side // crop_n_points_downscale_factor**crop_n_layers
            numbers["points_per_side (in the last layer)"] = smallest
        for name, value in numbers.items():
            if value < 1:
                raise PromptError(f"{name} is {value}; expected 1 or more")
        if crop_n_layers < 0:
            raise PromptError(f"crop_n_layers is {crop_n_layers}; expected 0 or more")
        if points_per_side is not None:
            self.point_grids = build_all_layer_point_grids(
                points_per_side, crop_n_layers, crop_n_points_downscale_factor
            )
        else:
            self.point_grids = [np.asarray(grid, np.float64) for grid in point_grids or []]
            if len(self.point_grids) <= crop_n_layers:
                raise PromptError(
                    f"point_grids has {len(self.point_grids)} grids; expected one for the image and one for "
                    f"each of {crop_n_layers} layers of crops"
                )
        self.model = model
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode

    def generate(
        self, image: NDArray[np.uint8], progress: Callable[[int, int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Masks of everything in an image (H, W, 3), uint8 RGB, the best-scored of the whole image first.

        Args:
            image: what to segment.
            progress: told of how many points are done, and of how many there are.

        Returns a record for each mask:
            segmentation: (H, W) bool, or an RLE as `output_mode` says.
            bbox: [x, y, w, h] in pixels, as published: from the first to the last pixel of the mask.
            area: pixels of the mask.
            predicted_iou, stability_score: float.
            point_coords: [[x, y]] of the prompt.
            crop_box: [x, y, w, h] of the crop that the mask was found in.

        Raises:
            ImageError: not such an image.
        """
        image = check_image(image)
        size = image.shape[0], image.shape[1]
        crop_boxes, layers = generate_crop_boxes(size, self.crop_n_layers, self.crop_overlap_ratio)
        found: list[_Candidate] = []
        done, total = 0, sum(len(self.point_grids[layer]) for layer in layers)
        for crop_box, layer in zip(crop_boxes, layers, strict=True):

            def advance(points: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + points, total)

            found += self._crop(image, crop_box, self.point_grids[layer], advance)
            done += len(self.point_grids[layer])
        if len(crop_boxes) > 1 and found:
            # Masks from smaller crops are preferred.
            scores = 1 / box_areas(np.array([one.crop_box for one in found]))
            boxes = np.stack([one.box for one in found])
            found = [found[i] for i in nms(boxes, scores, self.crop_nms_thresh)]
        rles = [one.rle(size) for one in found]
        if self.min_mask_region_area > 0 and found:
            found, rles = self._without_small_regions(found, rles)
        return [self._record(one, counts) for one, counts in zip(found, rles, strict=True)]

    def _crop(
        self,
        image: NDArray[np.uint8],
        crop_box: list[int],
        grid: NDArray[np.float64],
        advance: Callable[[int], None],
    ) -> list[_Candidate]:
        """The masks of one crop without duplicates, in pixels of the image."""
        x0, y0, x1, y1 = crop_box
        crop = np.ascontiguousarray(image[y0:y1, x0:x1])
        embedding = self.model.encode(crop)
        points = grid * np.array([[x1 - x0, y1 - y0]])
        upscaling = self.model.upscaling(embedding.original_size)
        found = []
        for start in range(0, len(points), self.points_per_batch):
            batch = points[start : start + self.points_per_batch]
            for n, _, score, low_res in self.model.candidates(embedding, batch, self.pred_iou_thresh):
                window = upscaling.window(
                    low_res, self.model.manifest.mask_threshold, self.stability_score_offset
                )
                stability = window.stability_score
                if self.stability_score_thresh > 0 and not stability >= self.stability_score_thresh:
                    continue
                corner = y0 + window.top, x0 + window.left
                box = mask_to_box(window.mask)
                box += np.array([window.left, window.top] * 2) if window.mask.any() else 0
                box += np.array([x0, y0] * 2)
                if is_box_near_crop_edge(box, crop_box, (image.shape[0], image.shape[1])):
                    continue
                bits, shape = np.packbits(window.mask), (window.mask.shape[0], window.mask.shape[1])
                at = batch[n] + np.array([x0, y0])
                found.append(_Candidate(box, score, stability, at, crop_box, corner, shape, bits))
            advance(start + len(batch))
        if not found:
            return []
        boxes, best = np.stack([one.box for one in found]), np.array([one.score for one in found])
        return [found[i] for i in nms(boxes, best, self.box_nms_thresh)]

    def _without_small_regions(
        self, found: list[_Candidate], rles: list[dict[str, Any]]
    ) -> tuple[list[_Candidate], list[dict[str, Any]]]:
        """Small holes and islands removed, then the duplicates that this makes."""
        boxes, unchanged, cleaned = [], [], []
        for counts in rles:
            mask, filled = remove_small_regions(rle.decode(counts), self.min_mask_region_area, "holes")
            mask, removed = remove_small_regions(mask, self.min_mask_region_area, "islands")
            boxes.append(mask_to_box(mask))
            unchanged.append(float(not (filled or removed)))
            cleaned.append(rle.encode_uncompressed(mask) if filled or removed else counts)
        threshold = max(self.box_nms_thresh, self.crop_nms_thresh)
        kept = nms(np.stack(boxes), np.array(unchanged), threshold)
        for i in kept:
            found[i].box = boxes[i] if not unchanged[i] else found[i].box
        return [found[i] for i in kept], [cleaned[i] for i in kept]

    def _record(self, one: _Candidate, counts: dict[str, Any]) -> dict[str, Any]:
        segmentation: Any = counts
        if self.output_mode == "binary_mask":
            segmentation = rle.decode(counts)
        elif self.output_mode == "coco_rle":
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
