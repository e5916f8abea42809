"""Images that INT8 is calibrated with: a folder of the user's, or the packaged photographs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam_edge.errors import CalibrationError, ImageError
from sam_edge.imaging.io import read_image
from sam_edge.imaging.preprocess import InputRules, preprocess
from sam_edge.models.photos import PHOTOS, read_photo

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
# Ranges converge after a few dozen images; more cost time and memory only.
MAX_IMAGES = 64
PACKAGED = "packaged photographs"


@dataclass(frozen=True)
class Calibration:
    """Calibration inputs of the encoder.

    Attributes:
        images: (1, 3, S, S) float32 each: RGB, resized, normalised and padded.
        sha256: hash of the images' bytes, in order.
        source: the folder's path, or `PACKAGED`.
        skipped: number of files in the folder that could not be read as images.
    """

    images: Sequence[NDArray[np.float32]]
    sha256: str
    source: str
    skipped: int = 0


def packaged_calibration(rules: InputRules) -> Calibration:
    """Calibrate with the packaged photographs, each whole, mirrored and cropped to its middle.

    Enough to try INT8, not to ship it.

    Args:
        rules: how the encoder's input is preprocessed.
    """
    images = []
    for photo in map(read_photo, PHOTOS):
        h, w = photo.shape[:2]
        images += [photo, photo[:, ::-1], photo[h // 4 : h - h // 4, w // 4 : w - w // 4]]
    return _calibration(images, rules, PACKAGED, 0)


def read_calibration(
    folder: Path, rules: InputRules, progress: Callable[[str], None] = lambda _: None
) -> Calibration:
    """Calibrate with the first `MAX_IMAGES` images in `folder` and its subfolders, sorted by path.

    Args:
        folder: holds images; files that cannot be read are skipped and counted.
        rules: how the encoder's input is preprocessed.
        progress: called with each step.

    Raises:
        CalibrationError: the folder does not exist or holds no readable image.
    """
    if not folder.is_dir():
        raise CalibrationError(f"--calib {folder} is not a folder; give one that holds images")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    images: list[NDArray[np.uint8]] = []
    skipped = 0
    for file in files:
        if len(images) == MAX_IMAGES:
            break
        progress(f"calibration image {len(images) + 1}")
        try:
            images.append(read_image(file))
        except ImageError:
            skipped += 1
    if not images:
        what = f"none of its {skipped} image files can be read" if skipped else "it holds no images"
        raise CalibrationError(
            f"--calib {folder}: {what}; expected {', '.join(sorted(SUFFIXES))} files, a few dozen images "
            "like those the model will see"
        )
    return _calibration(images, rules, str(folder), skipped)


def _calibration(
    images: Sequence[NDArray[np.uint8]], rules: InputRules, source: str, skipped: int
) -> Calibration:
    inputs = [preprocess(image, rules)[0] for image in images]
    digest = hashlib.sha256()
    for array in inputs:
        digest.update(array.tobytes())
    return Calibration(inputs, digest.hexdigest(), source, skipped)
