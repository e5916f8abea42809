"""COCO run-length encoding of masks, areas and boxes, in NumPy only.

The compressed counts are those of `pycocotools` (maskApi.c): column-major run lengths, each but the
first two as a difference to the one two before, in 5-bit groups as printable characters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """(H, W) bool -> {"size": [H, W], "counts": str}."""
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    runs = np.diff([0, *changes, flat.size]).tolist()
    text = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            group = value & 31
            value >>= 5
            more = value != (-1 if group & 16 else 0)
            text.append(chr((group | (32 if more else 0)) + 48))
            if not more:
                break
    return {"size": list(mask.shape), "counts": "".join(text)}


def decode(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """The inverse of `encode`."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in rle["counts"]:
        group = ord(character) - 48
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    height, width = rle["size"]
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape((width, height)).T


def bbox(mask: NDArray[np.bool_]) -> list[int]:
    """(H, W) bool -> [x, y, width, height] of the smallest box around it; zeros if empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return [0, 0, 0, 0]
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
