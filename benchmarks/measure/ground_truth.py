"""Compares masks with ground truth in COCO JSON, read by pycocotools (of the `bench` extra)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_edge.errors import BackendError, ImageError
from sam_edge.imaging.metrics import iou
from sam_edge.runtime.sam import Sam
from sam_edge.system.install import install_command
from sam_edge.system.output import suppress_output


def read_annotations(annotations: Path, images: Path) -> list[tuple[Path, list[NDArray[np.bool_]]]]:
    """Read the path of each image in the folder that has masks, and those masks (H, W); crowds are left out.

    Raises:
        ImageError: the file is not COCO JSON, or has masks for none of the images.
        BackendError: pycocotools is not installed.
    """
    try:
        import scipy.ndimage  # noqa: F401
        from pycocotools.coco import COCO
    except ImportError as error:
        raise BackendError(
            "--ground-truth needs pycocotools and SciPy, which are not both installed; "
            f"{install_command('bench')}"
        ) from error
    try:
        with suppress_output():
            data = COCO(str(annotations))
        found = []
        for image in data.loadImgs(sorted(data.getImgIds())):
            path = images / Path(image["file_name"]).name
            annotated = data.loadAnns(data.getAnnIds(imgIds=image["id"], iscrowd=False))
            masks = [mask for mask in (data.annToMask(one).astype(bool) for one in annotated) if mask.any()]
            if path.is_file() and masks:
                found.append((path, masks))
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise ImageError(
            f"{annotations} cannot be read as COCO JSON ({type(error).__name__}: {error}); expected `images` "
            "with file_name, and `annotations` with segmentation"
        ) from error
    if not found:
        raise ImageError(
            f"{annotations} has masks for no image in {images}; expected its `images` to have the file names "
            "of the folder, and annotations that are not crowds"
        )
    return found


def innermost_pixel(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """x, y of the pixel of an (H, W) mask that is farthest from its edge, in the maximum norm.

    Of several, the nearest to their common centre.
    """
    from scipy.ndimage import distance_transform_cdt

    depth = distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
    rows, columns = np.nonzero(depth == depth.max())
    nearest = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    return int(columns[nearest]), int(rows[nearest])


def evaluate(sam: Sam, annotations: Path, images: Path) -> dict[str, Any]:
    """Mean IoU of the masks for a box around each annotated mask, and for a click on its innermost pixel.

    The box gives one mask; of the click's three the one with the best score counts.

    Raises:
        ImageError: see `read_annotations`; or an image cannot be read, or has another size than its masks.
    """
    from sam_edge.imaging.io import read_image

    boxes, points = [], []
    found = read_annotations(annotations, images)
    for path, masks in found:
        image = read_image(path)
        if image.shape[:2] != masks[0].shape:
            raise ImageError(
                f"{path} is {image.shape[1]} x {image.shape[0]} pixels, and its masks are "
                f"{masks[0].shape[1]} x {masks[0].shape[0]}; expected annotations of this file"
            )
        embedding = sam.encode(image)
        for mask in masks:
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxed = sam.predict(embedding, boxes=box, multimask_output=False)
            clicked = sam.predict(embedding, [innermost_pixel(mask)], [1])
            boxes.append(iou(boxed.masks[0, 0], mask))
            points.append(iou(clicked.best()[0], mask))
    return {
        "images": len(found),
        "masks": len(boxes),
        "box_miou": float(np.mean(boxes)),
        "point_miou": float(np.mean(points)),
    }
