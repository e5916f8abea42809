"""Masks against those that people drew: COCO JSON, read by pycocotools (the `bench` extra)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_edge.errors import BackendError, ImageError
from sam_edge.imaging.metrics import erode, iou
from sam_edge.runtime.sam import Sam
from sam_edge.system.output import suppress_output


def read_annotations(annotations: Path, images: Path) -> list[tuple[Path, list[NDArray[np.bool_]]]]:
    """Each picture of the folder that has masks, and those masks (H, W); crowds are left out.

    Raises:
        ImageError: the file is no COCO JSON, or has masks for none of the pictures.
        BackendError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise BackendError(
            "COCO JSON needs pycocotools, which is not installed; pip install 'sam-edge[bench]'"
        ) from error
    try:
        with suppress_output():
            data = COCO(str(annotations))
        found = []
        for image in data.loadImgs(sorted(data.getImgIds())):
            path = images / Path(image["file_name"]).name
            drawn = data.loadAnns(data.getAnnIds(imgIds=image["id"], iscrowd=False))
            masks = [mask for mask in (data.annToMask(one).astype(bool) for one in drawn) if mask.any()]
            if path.is_file() and masks:
                found.append((path, masks))
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise ImageError(
            f"{annotations} cannot be read as COCO JSON ({type(error).__name__}: {error}); expected `images` "
            "with file_name, and `annotations` with segmentation"
        ) from error
    if not found:
        raise ImageError(
            f"{annotations} has masks for no picture of {images}; the file names of its `images` are those "
            "of the folder, and each has annotations that are not crowds"
        )
    return found


def middle_of(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """x, y of a pixel of an (H, W) mask that is as far inside as any (in the maximum norm)."""
    lowest, highest = 0, max(mask.shape)
    while highest - lowest > 1:
        steps = (lowest + highest) // 2
        lowest, highest = (steps, highest) if erode(mask, steps).any() else (lowest, steps)
    rows, columns = np.nonzero(erode(mask, lowest) if lowest else mask)
    nearest = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    return int(columns[nearest]), int(rows[nearest])


def evaluate(sam: Sam, annotations: Path, images: Path) -> dict[str, Any]:
    """mIoU of masks from the box around each drawn mask, and from one click in its middle.

    The box gives one mask; of the click's three the best-scored counts.

    Raises:
        ImageError: see `read_annotations`; or a picture cannot be read, or has another size than its masks.
    """
    from sam_edge.imaging.io import read_image

    boxes, points = [], []
    found = read_annotations(annotations, images)
    for path, masks in found:
        image = read_image(path)
        if image.shape[:2] != masks[0].shape:
            raise ImageError(
                f"{path} is {image.shape[1]} x {image.shape[0]}, and its masks {masks[0].shape[1]} x "
                f"{masks[0].shape[0]} pixels"
            )
        embedding = sam.encode(image)
        for mask in masks:
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxed = sam.predict(embedding, boxes=box, multimask_output=False)
            clicked = sam.predict(embedding, [middle_of(mask)], [1])
            boxes.append(iou(boxed.masks[0, 0], mask))
            points.append(iou(clicked.best()[0], mask))
    return {
        "images": len(found),
        "masks": len(boxes),
        "box_miou": float(np.mean(boxes)),
        "point_miou": float(np.mean(points)),
    }
