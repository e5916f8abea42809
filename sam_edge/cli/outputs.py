"""Files and JSON rows of `sam-edge predict`, with points as with a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError
from ..imaging import rle
from ..system.files import check_writable


def check_png(*paths: Path | None) -> None:
    """Raise `OutputError` unless each path that is not None can be written and ends in .png."""
    for path in paths:
        if path is not None:
            if path.suffix.lower() != ".png":
                raise OutputError(
                    f"cannot write {path}: images are written as PNG; use a name that ends in .png"
                )
            check_writable(path)


def mask_paths(out: Path | None, count: int) -> list[Path]:
    """Return the paths of `count` masks: none without `out`, `out` for one, numbered siblings for several."""
    if out is None:
        return []
    return [out] if count == 1 else [out.with_name(f"{out.stem}-{i}.png") for i in range(count)]


def check_outputs(masks: list[Path], overlay: Path | None, inputs: list[Path | None]) -> None:
    """Raise `OutputError` unless each file can be written and is neither another output nor an input."""
    used = {path.resolve(): "read by this command" for path in inputs if path is not None}
    for path in [*masks, *([] if overlay is None else [overlay])]:
        check_writable(path)
        if path.resolve() in used:
            raise OutputError(f"cannot write {path}: it is {used[path.resolve()]}; give another name")
        used[path.resolve()] = "also written by --out"


def mask_row(prompt: int, score: float, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the entry of `--json` for one mask (H, W) bool; `bbox` is x, y, width, height in pixels."""
    return {
        "prompt": prompt,
        "score": float(score),
        "area": int(mask.sum()),
        "bbox": rle.bbox(mask),
        "rle": rle.encode(mask),
    }
