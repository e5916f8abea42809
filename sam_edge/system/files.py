"""Hash files, and write files atomically."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

from ..errors import OutputError


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_writable(path: Path) -> None:
    """Raise `OutputError` unless a file could be written at `path`."""
    parent = path.absolute().parent
    try:
        if not parent.is_dir():
            raise OutputError(f"cannot write {path}: {parent} is not a directory; create it first")
        if path.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write {path}: it is a directory, or {parent} is not writable")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another name") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a temporary sibling, then rename it to `path`.

    Raises:
        OutputError: the file cannot be written; no partial file is left.
    """
    check_writable(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}-{threading.get_ident()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
