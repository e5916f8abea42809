"""Publish a folder, such as a bundle, whole or not at all.

It is built in a hidden folder beside its destination and renamed when complete. Its name holds the id of the
process that builds it, so that the next run can remove what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import OutputError


def _leftovers(out: Path) -> list[tuple[Path, str, int]]:
    pattern = re.compile(rf"\.{re.escape(out.name)}\.(partial|old)-(\d+)")
    found = []
    for sibling in out.parent.iterdir():
        match = pattern.fullmatch(sibling.name)
        if match:
            found.append((sibling, match[1], int(match[2])))
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def clean_up(out: Path) -> None:
    """Remove what killed exports left beside `out`; restore the old bundle that one had set aside."""
    for sibling, kind, pid in _leftovers(out):
        if pid != os.getpid() and _alive(pid):
            continue
        if kind == "old" and not out.exists():
            sibling.rename(out)
        else:
            shutil.rmtree(sibling, ignore_errors=True)


def check_destination(out: Path, marker: str, kind: str, option: str) -> None:
    """Refuse a destination that holds something other than what is to be replaced; writes nothing.

    Args:
        out: the destination.
        marker: the file that every folder of this kind holds.
        kind: what it is, for messages.
        option: what asked for it, for messages.

    Raises:
        OutputError: the destination is a file, or a folder of another kind.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{option} {out} is a file; give a directory to create")
    if out.is_dir() and any(out.iterdir()) and not (out / marker).is_file():
        raise OutputError(
            f"{option} {out} holds files but no {marker}, so it is not {kind} and is not "
            "replaced; give another directory"
        )


@contextlib.contextmanager
def staged(
    out: Path, marker: str = "manifest.json", kind: str = "a bundle", option: str = "--out"
) -> Iterator[Path]:
    """Yield a directory to build in; it is published as `out` when the block succeeds, removed otherwise.

    Args:
        out: may exist already, empty or of the same kind.
        marker: the file that every folder of this kind holds.
        kind: what it is, for messages.
        option: what asked for it, for messages.

    Raises:
        OutputError: `out` cannot be written, or holds something else.
    """
    out = out.absolute()
    check_destination(out, marker, kind, option)
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    created = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        clean_up(out)
        partial.mkdir()
    except OSError as error:
        raise OutputError(
            f"{option} {out}: {out.parent} cannot be written ({error.strerror}); give another directory"
        ) from error
    try:
        yield partial
        _replace(partial, out)
    except OSError as error:
        raise OutputError(f"writing {out} failed ({error.strerror}); nothing was published") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in created:
            # Only empty ones: a published bundle keeps its parents.
            with contextlib.suppress(OSError):
                parent.rmdir()


def _replace(partial: Path, out: Path) -> None:
    for path in partial.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    old = out.parent / f".{out.name}.old-{os.getpid()}"
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
