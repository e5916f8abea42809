"""Connected regions of masks: label them, fill small holes, remove small islands. NumPy only.

Works on the runs of each row. Runs of adjacent rows that touch are joined, all at once, until every region is
named by its first run (hooking and pointer jumping, Shiloach and Vishkin 1982).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError

Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]


def _runs(mask: Mask) -> tuple[Indices, Indices]:
    """Return start and end of every run of True, as flat indices into rows that are padded with one False."""
    flat = np.zeros((mask.shape[0], mask.shape[1] + 1), np.bool_)
    flat[:, :-1] = mask
    changes = np.flatnonzero(flat.ravel()[1:] != flat.ravel()[:-1]) + 1
    if mask.size and mask[0, 0]:
        changes = np.insert(changes, 0, 0)
    return changes[::2], changes[1::2]


def _components(starts: Indices, ends: Indices, stride: int, connectivity: int) -> tuple[Indices, Indices]:
    """Return the region of every run, from 0 in the order of first pixels, and the area of every region."""
    # The runs of the next row that touch a run are consecutive.
    reach = 1 if connectivity == 8 else 0
    first = np.searchsorted(ends, starts + (stride - reach), "right")
    last = np.searchsorted(starts, ends + (stride + reach), "left")
    counts = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(starts)), counts)
    lower = np.arange(len(upper)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    parent = np.arange(len(starts))
    while True:
        upper, lower = parent[upper], parent[lower]
        apart = upper != lower
        if not apart.any():
            break
        upper, lower = upper[apart], lower[apart]
        np.minimum.at(parent, np.maximum(upper, lower), np.minimum(upper, lower))
        while True:
            above = parent[parent]
            if np.array_equal(above, parent):
                break
            parent = above
    _, region = np.unique(parent, return_inverse=True)
    areas = np.bincount(region, weights=ends - starts)
    return region, areas.astype(np.intp)


def _paint(
    starts: Indices, ends: Indices, values: NDArray[Any], shape: tuple[int, int], nothing: Any
) -> NDArray[Any]:
    """Return (H, W) with each run filled with its value, and `nothing` elsewhere."""
    height, width = shape
    edges = np.concatenate(([0], np.stack([starts, ends], 1).ravel(), [height * (width + 1)]))
    every = np.full(2 * len(values) + 1, nothing, values.dtype)
    every[1::2] = values
    return np.ascontiguousarray(np.repeat(every, np.diff(edges)).reshape(height, width + 1)[:, :width])


def label(mask: Mask, connectivity: int = 8) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Label the connected regions of a mask.

        labels, areas = label(mask)
        labels == 1 + areas[1:].argmax()  # the largest region

    Args:
        mask: (H, W) bool.
        connectivity: 8 (pixels that share an edge or a corner) or 4 (an edge).

    Returns:
        labels (H, W) int32: 0 outside the mask, then 1, 2, ... in the order of each region's first pixel;
        areas (regions + 1,) int: the number of pixels of each label, 0 included.

    Raises:
        PromptError: the mask is not (H, W), or the connectivity is neither 4 nor 8.
    """
    mask = _checked(mask)
    if connectivity not in (4, 8):
        raise PromptError(f"connectivity is {connectivity}; expected 4 or 8")
    starts, ends = _runs(mask)
    region, areas = _components(starts, ends, mask.shape[1] + 1, connectivity)
    labels = _paint(starts, ends, (region + 1).astype(np.int32), (mask.shape[0], mask.shape[1]), 0)
    return labels, np.concatenate(([mask.size - areas.sum()], areas))


def remove_small_regions(mask: Mask, area_thresh: float, mode: str) -> tuple[Mask, bool]:
    """Fill small holes or remove small islands, as `segment_anything.utils.amg.remove_small_regions` does.

    Args:
        mask: (H, W) bool.
        area_thresh: regions of fewer pixels are small.
        mode: "holes" fills small regions outside the mask, also at the image's border; "islands" removes
            small regions of the mask, but keeps the largest (the first of equals) if all are small. Regions
            are 8-connected in both.

    Returns:
        the mask (H, W) bool, and whether it was changed.

    Raises:
        PromptError: the mask is not (H, W), or the mode is unknown.
    """
    mask = _checked(mask)
    if mode not in ("holes", "islands"):
        raise PromptError(f"mode is {mode!r}; expected 'holes' or 'islands'")
    holes = mode == "holes"
    starts, ends = _runs(~mask if holes else mask)
    region, areas = _components(starts, ends, mask.shape[1] + 1, 8)
    small = areas < area_thresh
    if not small.any():
        return mask, False
    if small.all() and not holes:
        small[areas.argmax()] = False
    kept = small[region] if holes else ~small[region]
    return _paint(starts, ends, kept, (mask.shape[0], mask.shape[1]), holes), True


def clean(masks: Mask, min_area: float) -> Mask:
    """Fill holes, then remove islands, of fewer than `min_area` pixels.

        clean(masks, 100)

    Args:
        masks: (..., H, W) bool; each is cleaned on its own, and its largest island always stays.
        min_area: in pixels.

    Returns:
        (..., H, W) bool, a new array.

    Raises:
        PromptError: fewer than two axes, or `min_area` is negative or NaN.
    """
    masks = np.asarray(masks, bool)
    if masks.ndim < 2:
        raise PromptError(f"the masks have shape {masks.shape}; expected (..., H, W)")
    if not min_area >= 0:
        raise PromptError(f"the smallest area is {min_area}; expected 0 pixels or more")
    cleaned = masks.copy()
    for mask in cleaned.reshape(-1, *masks.shape[-2:]):
        for mode in ("holes", "islands"):
            mask[:] = remove_small_regions(mask, min_area, mode)[0]
    return cleaned


def _checked(mask: Mask) -> Mask:
    mask = np.asarray(mask, bool)
    if mask.ndim != 2:
        raise PromptError(f"the mask has shape {mask.shape}; expected (H, W)")
    return mask
