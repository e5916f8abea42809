"""Pictures to calibrate INT8 with: a folder of the user's own, or the packaged photographs."""

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
# Ranges settle after a few dozen pictures; more of them cost time and memory only.
MAX_IMAGES = 64
PACKAGED = "packaged photographs"


@dataclass(frozen=True)
class Calibration:
    """Encoder inputs to calibrate with.

    Attributes:
        images: (1, 3, S, S) float32 each, as the encoder takes them.
        sha256: over the images' bytes, in order.
        source: what to call them: the folder, or `PACKAGED`.
        skipped: files of the folder that are no pictures.
    """

    images: Sequence[NDArray[np.float32]]
    sha256: str
    source: str
    skipped: int = 0


def packaged_calibration(rules: InputRules) -> Calibration:
    """The photographs that travel with the package, whole, mirrored and their middle halves: enough to
    try INT8 with, not to ship it."""
    pictures = []
    for photo in map(read_photo, PHOTOS):
        h, w = photo.shape[:2]
        pictures += [photo, photo[:, ::-1], photo[h // 4 : h - h // 4, w // 4 : w - w // 4]]
    return _calibration(pictures, rules, PACKAGED, 0)


def read_calibration(
    folder: Path, rules: InputRules, progress: Callable[[str], None] = lambda _: None
) -> Calibration:
    """The first `MAX_IMAGES` pictures below `folder`, by name; files that cannot be read are counted.

    Raises:
        CalibrationError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise CalibrationError(f"--calib {folder} is not a folder; give one that holds pictures")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    pictures: list[NDArray[np.uint8]] = []
    skipped = 0
    for file in files:
        if len(pictures) == MAX_IMAGES:
            break
        progress(f"calibration picture {len(pictures) + 1}")
        try:
            pictures.append(read_image(file))
        except ImageError:
            skipped += 1
    if not pictures:
        what = f"none of its {skipped} picture files can be read" if skipped else "it holds no pictures"
        raise CalibrationError(
            f"--calib {folder}: {what}; expected {', '.join(sorted(SUFFIXES))} files, some dozens of "
            "pictures like those the model will see"
        )
    return _calibration(pictures, rules, str(folder), skipped)


def _calibration(
    pictures: Sequence[NDArray[np.uint8]], rules: InputRules, source: str, skipped: int
) -> Calibration:
    images = [preprocess(picture, rules)[0] for picture in pictures]
    digest = hashlib.sha256()
    for image in images:
        digest.update(image.tobytes())
    return Calibration(images, digest.hexdigest(), source, skipped)
