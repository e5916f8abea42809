"""Download a published checkpoint over HTTP, only when the user asks for it.

The file is written to `FILE.part` and renamed once its size and hash are right. An interrupted download
leaves `FILE.part`, and the next one resumes there; without a known hash it starts again, because nothing
would show that the two halves belong to different files.
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

# Called with the number of bytes downloaded, and the total if it is known.
Progress = Callable[[int, int | None], None]

_BLOCK = 1 << 16
# Seconds to connect, and between two blocks.
_TIMEOUT = (15, 60)
_HEADERS = {"User-Agent": "sam-edge", "Accept-Encoding": "identity"}


def download(checkpoint: Checkpoint, directory: Path, progress: Progress = lambda done, total: None) -> Path:
    """Download a checkpoint into `directory`, unless it is there, and check its size and hash.

    Args:
        checkpoint: what to download.
        directory: an existing directory.
        progress: called after each block with the bytes so far and the total, or None if that is not known.

    Returns:
        the path of the file.

    Raises:
        CheckpointError: it cannot be downloaded, or a different file of that name exists.
        DownloadError: the transfer failed, or the file has the wrong size or hash.
        OutputError: `directory` cannot be written.
    """
    if checkpoint.source == "embedded":
        raise CheckpointError(
            f"nothing to download: {checkpoint.file} is part of sam-edge and is found by itself"
        )
    if checkpoint.url is None:
        raise CheckpointError(f"{checkpoint.file} has no direct link; get it from {checkpoint.source}")
    path = directory / checkpoint.file
    check_writable(path)
    part = path.with_name(f"{path.name}.part")
    resumable = checkpoint.sha256 is not None
    try:
        if path.exists():
            wrong = _difference(path, checkpoint)
            if wrong:
                raise CheckpointError(f"{path} is not the published file: it has {wrong}; move it away")
            return path
        if not resumable:
            part.unlink(missing_ok=True)
        _transfer(checkpoint.url, part, checkpoint, progress)
        wrong = _difference(part, checkpoint)
        if wrong:
            part.unlink()
            raise DownloadError(
                f"{checkpoint.url} is not the published file: it has {wrong}; the download was removed"
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
    """Describe how a file differs from the catalogue's entry; "" if it does not."""
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
    """Download the rest of `part`."""
    start = part.stat().st_size if part.exists() else 0
    headers = {**_HEADERS, "Range": f"bytes={start}-"} if start else _HEADERS
    done, total = start, checkpoint.bytes
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            status, (begin, size) = response.status_code, _content_range(response)
            if start and status == 416 and size == start:
                return None
            if start and status in (206, 416) and begin != start:
                part.unlink()
                return _transfer(url, part, checkpoint, progress)
            if status != (206 if begin else 200):
                raise DownloadError(f"{url} answered {status} {response.reason}; see {checkpoint.source}")
            if size is not None and total is not None and size != total:
                raise DownloadError(f"{url} has {size} bytes instead of {total}; nothing was downloaded")
            done, total = begin or 0, size or total
            with part.open("ab" if done else "wb") as file:
                for block in response.iter_content(_BLOCK):
                    file.write(block)
                    done += len(block)
                    progress(done, total)
    except requests.RequestException as error:
        reason = _innermost(error)
        if done == start:
            raise DownloadError(f"cannot download {url}: {reason}") from error
        raise _interrupted(url, done, total, reason, checkpoint) from error
    if total is not None and done < total:
        raise _interrupted(url, done, total, "the connection ended", checkpoint)


def _interrupted(
    url: str, done: int, total: int | None, reason: str, checkpoint: Checkpoint
) -> DownloadError:
    again = "resumes there" if checkpoint.sha256 else "starts again, as its hash is not known"
    of = f" of {total}" if total else ""
    return DownloadError(
        f"the download of {url} stopped after {done}{of} bytes ({reason}); the same command {again}"
    )


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """Return the body's offset in the file and the file's size; None for what the response does not say."""
    if response.status_code not in (206, 416):
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    begin, size = found.groups() if found else (None, None)
    return int(begin) if begin else None, int(size) if size and size != "*" else None


def _innermost(error: BaseException) -> str:
    """Return the message of the original error, without those of the layers above it."""
    while error.__context__ is not None:
        error = error.__context__
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
