"""`SamAutomaticMaskGenerator` as in `segment_anything`, over everything-mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tasks.everything import POINTS_PER_SIDE, EverythingOptions, choose_point_grids, generate_masks
from ..tasks.segmenter import Segmenter
from ..types import MaskRecord, OutputMode


class SamAutomaticMaskGenerator:
    """Generates masks for a whole image from a grid of point prompts.

        generator = SamAutomaticMaskGenerator(sam_edge.load("bundle"), points_per_side=16)
        records = generator.generate(image)

    Args:
        model: from `sam_edge.load` or `sam_model_registry`.
        points_per_side: points along one side of the grid; None if `point_grids` is given.
        points_per_batch: points whose low-resolution masks are held at once.
        pred_iou_thresh: masks with a predicted IoU at or below it are dropped; 0 keeps all.
        stability_score_thresh: masks with a lower stability score are dropped: the IoU of the mask at a
            raised and at a lowered threshold; 0 keeps all.
        stability_score_offset: by how much that threshold, in logits, is raised and lowered.
        box_nms_thresh: of two masks whose boxes have a higher IoU only the better one is kept.
        crop_n_layers: layers of crops to run as well, 2 ** i by 2 ** i crops in layer i.
        crop_nms_thresh: as `box_nms_thresh`, between crops.
        crop_overlap_ratio: how much crops overlap, as a share of the image's short side.
        crop_n_points_downscale_factor: in layer i, points per side are divided by this to the power i.
        point_grids: one (N, 2) grid in [0, 1] for each layer, instead of `points_per_side`.
        min_mask_region_area: holes and islands of fewer pixels are removed.
        output_mode: "binary_mask", "uncompressed_rle" or "coco_rle".

    Raises:
        PromptError: arguments that contradict each other.
    """

    # The names, order and defaults of the published class.
    def __init__(
        self,
        model: Segmenter,
        points_per_side: int | None = POINTS_PER_SIDE,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[NDArray[Any]] | None = None,
        min_mask_region_area: int = 0,
        output_mode: OutputMode = "binary_mask",
    ) -> None:
        self.model = model
        self.point_grids = choose_point_grids(
            points_per_side, point_grids, crop_n_layers, crop_n_points_downscale_factor
        )
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_mask_region_area = min_mask_region_area
        self.output_mode: OutputMode = output_mode
        self._options()  # raises where the arguments contradict each other

    def generate(
        self, image: NDArray[np.uint8], progress: Callable[[int, int], None] | None = None
    ) -> list[MaskRecord]:
        """Return a record for each mask of an image, the best-scored of the whole image first.

        Args:
            image: (H, W, 3) uint8 RGB.
            progress: called with the number of points that are done, and of all points.

        Raises:
            ImageError: not such an image.
        """
        return generate_masks(self.model, image, self._options(), progress)

    def _options(self) -> EverythingOptions:
        """Return the attributes as options: scripts may have set them since."""
        return EverythingOptions(
            point_grids=self.point_grids,
            points_per_batch=self.points_per_batch,
            pred_iou_thresh=self.pred_iou_thresh,
            stability_score_thresh=self.stability_score_thresh,
            stability_score_offset=self.stability_score_offset,
            box_nms_thresh=self.box_nms_thresh,
            crop_n_layers=self.crop_n_layers,
            crop_nms_thresh=self.crop_nms_thresh,
            crop_overlap_ratio=self.crop_overlap_ratio,
            min_mask_region_area=self.min_mask_region_area,
            output_mode=self.output_mode,
        )
