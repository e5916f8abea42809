"""Images that measurements are made on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam_edge.models.photos import PHOTOS, read_photo

FULL_HD = (1080, 1920)


def photograph(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A packaged photograph at `size` (H, W): (H, W, 3) uint8 RGB."""
    return np.array(Image.fromarray(read_photo(PHOTOS[0])).resize((size[1], size[0])))


def random_image(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """A packaged photograph, rotated at random and stretched to `size` (H, W): (H, W, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    photo = read_photo(PHOTOS[int(rng.integers(len(PHOTOS)))])
    rotated = Image.fromarray(np.rot90(photo, int(rng.integers(4))).copy())
    return np.array(rotated.resize((size[1], size[0]), Image.Resampling.BICUBIC))
