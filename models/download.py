"""Fetch a published checkpoint over HTTP; only ever because somebody asked for it.

The file is written as `FILE.part` beside its place and renamed when its size and hash are right. A transfer
that stops leaves `FILE.part`, and the next one goes on from there; where no hash is known nothing would tell
a file of two halves that do not belong together, so then it starts anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import requests

from sam_edge.errors import CheckpointError, DownloadError, OutputError
from sam_edge.system.files import check_writable, sha256_file

from .catalogue import Checkpoint

# Called with the bytes that are here and, where it is known, with how many there will be.
Progress = Callable[[int, int | None], None]

_BLOCK = 1 << 16
# Seconds to connect, and between two pieces.
_TIMEOUT = (15, 60)
_HEADERS = {"User-Agent": "sam-edge", "Accept-Encoding": "identity"}


def download(checkpoint: Checkpoint, directory: Path, progress: Progress = lambda done, total: None) -> Path:
    """The checkpoint's file in `directory`, fetched if it is not there, checked either way.

    Raises:
        CheckpointError: nothing to fetch, no address known, or another file of that name is there.
        DownloadError: the transfer failed or brought another file.
        OutputError: `directory` cannot be written.
    """
    if checkpoint.source == "embedded":
        raise CheckpointError(
            f"nothing to fetch: {checkpoint.file} comes with sam-edge, which finds it itself"
        )
    if checkpoint.url is None:
        raise CheckpointError(
            f"no address is known to fetch {checkpoint.file} from; get it from {checkpoint.source}"
        )
    path = directory / checkpoint.file
    check_writable(path)
    part = path.with_name(f"{path.name}.part")
    resumable = checkpoint.sha256 is not None
    try:
        if path.exists():
            wrong = _difference(path, checkpoint)
            if wrong:
                raise CheckpointError(f"{path} is not the published file, but has {wrong}; move it away")
            return path
        if not resumable:
            part.unlink(missing_ok=True)
        _transfer(checkpoint.url, part, checkpoint, progress)
        wrong = _difference(part, checkpoint)
        if wrong:
            part.unlink()
            raise DownloadError(
                f"{checkpoint.url} is not the published file, but has {wrong}; what was fetched was removed"
            )
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if not resumable:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return path


def _difference(path: Path, checkpoint: Checkpoint) -> str:
    """What tells a file from the catalogue's; nothing if nothing does."""
    size = path.stat().st_size
    if checkpoint.bytes is not None and size != checkpoint.bytes:
        return f"{size} bytes instead of {checkpoint.bytes}"
    if checkpoint.sha256 is None:
        return ""
    found = sha256_file(path)
    if found == checkpoint.sha256:
        return ""
    return f"the sha256 {found} instead of {checkpoint.sha256} (recorded by {checkpoint.sha256_by})"


def _transfer(url: str, part: Path, checkpoint: Checkpoint, progress: Progress) -> None:
    """Fetch what `part` lacks."""
    start = part.stat().st_size if part.exists() else 0
    headers = {**_HEADERS, "Range": f"bytes={start}-"} if start else _HEADERS
    done, total = start, checkpoint.bytes
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            status, (begin, size) = response.status_code, _offer(response)
            if start and status == 416 and size == start:
                return None
            if start and status in (206, 416) and begin != start:
                part.unlink()
                return _transfer(url, part, checkpoint, progress)
            if status != (206 if begin else 200):
                raise DownloadError(f"{url} answered {status} {response.reason}; see {checkpoint.source}")
            if size is not None and total is not None and size != total:
                raise DownloadError(f"{url} has {size} bytes instead of {total}; nothing was fetched")
            done, total = begin or 0, size or total
            with part.open("ab" if done else "wb") as file:
                for block in response.iter_content(_BLOCK):
                    file.write(block)
                    done += len(block)
                    progress(done, total)
    except requests.RequestException as error:
        reason = _innermost(error)
        if done == start:
            raise DownloadError(f"cannot fetch {url}: {reason}") from error
        raise _stopped(url, done, total, reason, checkpoint) from error
    if total is not None and done < total:
        raise _stopped(url, done, total, "the connection ended", checkpoint)


def _stopped(url: str, done: int, total: int | None, reason: str, checkpoint: Checkpoint) -> DownloadError:
    again = "goes on from there" if checkpoint.sha256 else "starts anew, as no hash of it is known"
    of = f" of {total}" if total else ""
    return DownloadError(
        f"fetching {url} stopped after {done}{of} bytes ({reason}); the same command {again}"
    )


def _offer(response: requests.Response) -> tuple[int | None, int | None]:
    """Where in the file the body begins, and how long the file is; None for what is not said."""
    if response.status_code not in (206, 416):
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    begin, size = found.groups() if found else (None, None)
    return int(begin) if begin else None, int(size) if size and size != "*" else None


def _innermost(error: BaseException) -> str:
    """What was wrong in the end, without the layers that it went through."""
    while error.__context__ is not None:
        error = error.__context__
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
