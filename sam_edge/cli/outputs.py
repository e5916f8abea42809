"""What `sam-edge predict` writes and reports, with points or with a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError
from ..imaging import rle
from ..system.files import check_writable


def check_png(*paths: Path | None) -> None:
    """Raise `OutputError` unless each path given could be written, as PNG."""
    for path in paths:
        if path is not None:
            if path.suffix.lower() != ".png":
                raise OutputError(f"cannot write {path}: pictures are written as PNG; name it .png")
            check_writable(path)


def numbered(out: Path | None, count: int) -> list[Path]:
    """Where `count` masks go: nowhere, to `out` itself for one, to numbered siblings for several."""
    if out is None:
        return []
    return [out] if count == 1 else [out.with_name(f"{out.stem}-{i}.png") for i in range(count)]


def check_outputs(masks: list[Path], overlay: Path | None, inputs: list[Path | None]) -> None:
    """Raise `OutputError` unless each can be written, and is neither another output nor an input."""
    taken = {path.resolve(): "read by this command" for path in inputs if path is not None}
    for path in [*masks, *([] if overlay is None else [overlay])]:
        check_writable(path)
        if path.resolve() in taken:
            raise OutputError(f"cannot write {path}: it is {taken[path.resolve()]}; give another name")
        taken[path.resolve()] = "written by --out too"


def mask_row(prompt: int, score: float, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """One mask (H, W) in the answer of `--json`."""
    return {
        "prompt": prompt,
        "score": float(score),
        "area": int(mask.sum()),
        "bbox": rle.bbox(mask),
        "rle": rle.encode(mask),
    }
