"""COCO run-length encoding of masks, areas and boxes, in NumPy only.

Runs are column-major and alternate between 0 and 1, beginning with 0. An uncompressed RLE holds them as a
list, {"size": [H, W], "counts": [int, ...]}; a compressed one as text, as `pycocotools` (maskApi.c) writes
it: from the fourth run on the difference to the run two before, in 5-bit groups as printable characters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode a mask (H, W) bool as a compressed RLE, {"size": [H, W], "counts": str}."""
    return compress(encode_uncompressed(mask))


def encode_uncompressed(
    mask: NDArray[np.bool_], top: int = 0, left: int = 0, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Encode a mask as an uncompressed RLE, {"size": [H, W], "counts": [int, ...]}.

    Args:
        mask: (h, w) bool, the whole mask or the only part of it that is not empty.
        top: row of the part's first pixel.
        left: column of the part's first pixel.
        size: (H, W) of the whole mask; None if `mask` is the whole.
    """
    height, width = mask.shape if size is None else size
    columns = np.ascontiguousarray(mask.T, np.int8)
    edges = np.diff(columns, axis=1, prepend=np.int8(0), append=np.int8(0))
    column, row = np.nonzero(edges)
    at = (left + column) * height + top + row
    # Starts and ends alternate. A run that ends at the bottom of a column continues if the next column begins
    # with a run.
    starts, ends = at[::2], at[1::2]
    continues = starts[1:] == ends[:-1]
    kept = np.empty((2, len(starts)), bool)
    kept[0, :1], kept[0, 1:] = True, ~continues
    kept[1, -1:], kept[1, :-1] = True, ~continues
    changes = np.stack([starts[kept[0]], ends[kept[1]]], axis=1).ravel()
    counts = np.diff(changes, prepend=0, append=height * width).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    return {"size": [height, width], "counts": counts}


def compress(rle: dict[str, Any]) -> dict[str, Any]:
    """Convert an uncompressed RLE to a compressed one."""
    runs = rle["counts"]
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
    return {"size": list(rle["size"]), "counts": "".join(text)}


def _runs(text: str) -> list[int]:
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    return runs


def decode(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """Decode an RLE, compressed or not, to a mask (H, W) bool."""
    counts = rle["counts"]
    runs = _runs(counts) if isinstance(counts, str) else counts
    height, width = rle["size"]
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape((width, height)).T


def area(rle: dict[str, Any]) -> int:
    """Return the area in pixels of an uncompressed RLE."""
    return sum(rle["counts"][1::2])


def bbox(mask: NDArray[np.bool_]) -> list[int]:
    """Return [x, y, width, height] in pixels of the box around a mask (H, W) bool; zeros if empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return [0, 0, 0, 0]
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
