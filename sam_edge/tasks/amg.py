"""The parts of automatic mask generation, as plain functions on arrays.

Names and results follow `segment_anything.utils.amg` (Kirillov et al. 2023, appendix B); boxes are x0, y0,
x1, y1 in pixels, the last row and column included.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..imaging.rle import bbox

Floats = NDArray[np.float64]


def build_point_grid(n_per_side: int) -> Floats:
    """Return (n * n, 2) points evenly spaced in [0, 1] x [0, 1], row by row."""
    side = np.linspace(1 / (2 * n_per_side), 1 - 1 / (2 * n_per_side), n_per_side)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def build_all_layer_point_grids(n_per_side: int, n_layers: int, scale_per_layer: int) -> list[Floats]:
    """Return the grid of the whole image, then one for the crops of each layer."""
    return [build_point_grid(int(n_per_side / scale_per_layer**i)) for i in range(n_layers + 1)]


def generate_crop_boxes(
    image_size: tuple[int, int], n_layers: int, overlap_ratio: float
) -> tuple[list[list[int]], list[int]]:
    """Return the whole image, then (2 ** i) ** 2 overlapping crops for layer i: boxes and their layers."""
    height, width = image_size
    boxes, layers = [[0, 0, width, height]], [0]
    for layer in range(1, n_layers + 1):
        n = 2**layer
        overlap = int(overlap_ratio * min(image_size) * (2 / n))
        crop_width, crop_height = (math.ceil((overlap * (n - 1) + side) / n) for side in (width, height))
        for column in range(n):
            for row in range(n):
                x, y = (crop_width - overlap) * column, (crop_height - overlap) * row
                boxes.append([x, y, min(x + crop_width, width), min(y + crop_height, height)])
                layers.append(layer)
    return boxes, layers


def is_box_near_crop_edge(
    box: NDArray[np.int64], crop_box: list[int], image_size: tuple[int, int], atol: float = 20.0
) -> bool:
    """Tell whether a box, in pixels of the image, ends at its crop's edge and not at the image's."""
    image_box = np.array([0, 0, image_size[1], image_size[0]])
    near_crop = np.abs(box - np.array(crop_box)) <= atol
    return bool((near_crop & (np.abs(box - image_box) > atol)).any())


def mask_to_box(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the outermost pixels of a mask (H, W) bool: (4,) x0, y0, x1, y1; zeros if it is empty."""
    x, y, width, height = bbox(mask)
    return np.array([x, y, max(x, x + width - 1), max(y, y + height - 1)], np.int64)


def box_areas(boxes: NDArray[np.int64]) -> Floats:
    """Return the areas of boxes (N, 4): (N,)."""
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    return np.asarray(sides[:, 0] * sides[:, 1])


def nms(boxes: NDArray[np.int64], scores: Floats, iou_threshold: float) -> NDArray[np.intp]:
    """Suppress boxes (N, 4) that overlap a better one, as torchvision's `nms`; return the indices kept, best
    score first."""
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order].astype(np.float64)
    areas = box_areas(boxes)
    alive = np.ones(len(order), bool)
    kept = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        corners = np.maximum(boxes[i, :2], boxes[i + 1 :, :2]), np.minimum(boxes[i, 2:], boxes[i + 1 :, 2:])
        overlap = np.maximum(corners[1] - corners[0], 0).prod(axis=1)
        # Without a division: two boxes without an area do not suppress each other.
        alive[i + 1 :] &= overlap <= iou_threshold * (areas[i] + areas[i + 1 :] - overlap)
    return order[kept]
