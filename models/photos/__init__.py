"""Sample photographs for first runs, golden data and calibration; README.md lists their sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
PHOTOS = ("cat.jpg", "coffee.jpg", "astronaut.jpg", "motorcycle.jpg", "rocket.jpg")


def read_photo(name: str) -> NDArray[np.uint8]:
    """Read one of `PHOTOS` as (H, W, 3) uint8 RGB; requires Pillow."""
    from PIL import Image

    with Image.open(HERE / name) as picture:
        return np.asarray(picture.convert("RGB"))
