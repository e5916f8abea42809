"""Warm start: what a runtime made of a graph, kept in a directory for the next process.

An entry is a folder, named by a hash of the graph's bytes and of everything that its contents depend on: the
runtime and its version, the device, the processor. Beside the runtime's own files it has `entry.json` with
the checksum of each. It is written to a temporary sibling and renamed when whole, so that any number of
processes may share a directory; it is checked before use, and one that was damaged, cut short or put there by
something else is thrown away and made again. Whoever can write the directory can choose what is computed:
give it the permissions of the program itself.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import sys
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ..bundle.variant import ClipVariant, Variant
from ..errors import OutputError, SamEdgeWarning

_SIDECAR = "entry.json"
# Of what is not yet, or no longer, an entry.
_PREFIX = ".sam-edge-"
# What a killed process left half-written is removed after so many seconds.
_STALE = 24 * 3600.0


class Warm:
    """The entries of one graph."""

    def __init__(self, directory: Path, graph: str, check: Callable[[], None] = lambda: None) -> None:
        """`graph` identifies the graph's bytes; `check` is for who reads them: whether they are as exported.

        Raises:
            OutputError: `directory` is not there and cannot be made.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot use {directory} as a cache ({error.strerror}); give a directory, or one to be made"
            ) from error
        self._directory = directory
        self._graph = graph
        self.check = check

    def find(self, *facts: str) -> Path | None:
        """The folder kept under these facts, its files as they were written; None where there is none."""
        folder = self._folder(facts)
        if not os.path.lexists(folder):
            return None
        if self._is_whole(folder, facts):
            return folder
        self.discard(*facts)
        return None

    def keep(self, write: Callable[[Path], None], *facts: str) -> Path | None:
        """Let `write` fill a folder, and keep it under these facts; its place, None where that failed.

        What `write` raises is taken as "there is nothing to keep" and, as a directory that cannot be written,
        said in a `SamEdgeWarning`: the model runs without.
        """
        import shutil
        import tempfile

        folder = self._folder(facts)
        partial = None
        try:
            self._sweep()
            partial = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}partial.", dir=self._directory))
            write(partial)
            files = {name: checksum(partial / name) for name in _files(partial)}
            sidecar = {"graph": self._graph, "facts": list(facts), "files": files}
            (partial / _SIDECAR).write_text(json.dumps(sidecar, indent=1), "utf-8")
            try:
                partial.rename(folder)
            except OSError:
                # Another process was faster, or left something damaged there.
                if self.find(*facts) is None:
                    partial.rename(folder)
            return folder
        except Exception as error:
            reason = " ".join(str(error).split())
            warnings.warn(
                f"nothing was kept in the cache {self._directory} ({reason}); the model was loaded without",
                SamEdgeWarning,
                stacklevel=2,
            )
            return None
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)

    def discard(self, *facts: str) -> None:
        """Throw away what is kept under these facts, as far as the directory lets us."""
        import shutil
        import tempfile

        # Renamed first: no other process should find half of it.
        with suppress(OSError):
            grave = tempfile.mkdtemp(prefix=f"{_PREFIX}discarded.", dir=self._directory)
            with suppress(OSError):
                self._folder(facts).rename(Path(grave) / "entry")
            shutil.rmtree(grave, ignore_errors=True)

    def _folder(self, facts: tuple[str, ...]) -> Path:
        text = json.dumps([self._graph, *facts])
        return self._directory / f"{facts[0]}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _is_whole(self, folder: Path, facts: tuple[str, ...]) -> bool:
        try:
            sidecar = json.loads((folder / _SIDECAR).read_bytes())
            files = sidecar["files"]
            return bool(
                sidecar["graph"] == self._graph
                and sidecar["facts"] == list(facts)
                and sorted(files) == _files(folder)
                and all(checksum(folder / name) == expected for name, expected in files.items())
            )
        except Exception:  # whatever may be in a file that is not ours
            return False

    def _sweep(self) -> None:
        import shutil
        import time

        for left in self._directory.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                if left.is_dir() and time.time() - left.stat().st_mtime > _STALE:
                    shutil.rmtree(left, ignore_errors=True)


class WorkingFolder:
    """A folder of this process alone, for runtimes that read and write their cache as they please.

    It starts with what was kept; `save` keeps what is in it now.
    """

    def __init__(self, warm: Warm, *facts: str) -> None:
        import shutil
        import tempfile

        self._warm, self._facts = warm, facts
        self.path = Path(tempfile.mkdtemp(prefix="sam-edge-"))
        kept = warm.find(*facts)
        if kept is not None:
            with suppress(OSError):
                shutil.copytree(kept, self.path, dirs_exist_ok=True)
        (self.path / _SIDECAR).unlink(missing_ok=True)
        self._before = self._state()

    def save(self) -> None:
        """Keep the folder's contents, if they have changed."""
        state = self._state()
        if state and state != self._before:
            self._before = state
            self._warm.discard(*self._facts)
            self._warm.keep(lambda to: _copy(self.path, to), *self._facts)

    def close(self) -> None:
        """`save`, then remove the folder."""
        import shutil

        self.save()
        shutil.rmtree(self.path, ignore_errors=True)

    def _state(self) -> list[tuple[str, int, int]]:
        stats = [(name, (self.path / name).stat()) for name in _files(self.path)]
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def checksum(path: Path) -> str:
    """Size and CRC-32 of a file: they find damage, in a third of SHA-256's time, which loading waits for."""
    with path.open("rb", buffering=0) as file:
        if not os.fstat(file.fileno()).st_size:
            return "0-00000000"
        # In one call, so that other threads run meanwhile.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            return f"{len(whole)}-{zlib.crc32(whole):08x}"


def graph_id(root: Path, variant: Variant | ClipVariant, graph: str, checked: bool) -> str:
    """What identifies a graph's bytes: the SHA-256 of every file of its variant.

    Where the files were not compared with the manifest (`checked`), also the time and size of each: a file
    that was changed since is another.
    """
    facts: list[Any] = [graph, *((file.path, file.sha256) for file in variant.files)]
    if not checked:
        for file in variant.files:
            with suppress(OSError):
                stat = (root / file.path).stat()
                facts.append((stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@cache
def processor() -> str:
    """What identifies this processor's instructions: graphs are laid out for them."""
    import platform

    facts = [platform.system(), platform.machine()]
    if sys.platform != "linux":
        facts.append(platform.processor())
    else:
        # There, `platform.processor` runs a program and says less.
        with suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
            wanted = ("flags", "features", "model name", "cpu part", "isa")
            facts += sorted({line for line in lines if line.casefold().startswith(wanted)})
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _files(folder: Path) -> list[str]:
    """Every file below `folder` but the sidecar, by its relative name."""
    found = [
        Path(root, name).relative_to(folder).as_posix()
        for root, _, names in os.walk(folder)
        for name in names
    ]
    return sorted(name for name in found if name != _SIDECAR)


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target, dirs_exist_ok=True)
