"""Entries of the manifest on the files of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sam_edge.system.files import sha256_file


def file_entry(root: Path, path: Path) -> dict[str, Any]:
    """A file of the bundle at `root`."""
    return {
        "path": path.relative_to(root).as_posix(),
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
    }


def file_entries(root: Path, directory: Path) -> list[dict[str, Any]]:
    """Every file below a directory of the bundle at `root`."""
    return [file_entry(root, path) for path in sorted(directory.rglob("*")) if path.is_file()]
