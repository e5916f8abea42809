"""A cache of compiled graphs on disk, so that the next process loads them sooner.

An entry is a folder, named by a hash of the graph's bytes and of everything that its contents depend on: the
runtime and its version, the device, the processor. Beside the runtime's own files it has `entry.json` with
the checksum of each. It is written to a temporary sibling and renamed when complete, so that any number of
processes may share a directory. It is checked before use, and one that is damaged, cut short or foreign is
discarded and made again. Whoever can write the directory can choose what is computed: give it the permissions
of the program itself.
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
# Names of folders that are not yet, or no longer, an entry.
_TEMPORARY_PREFIX = ".sam-edge-"
# Seconds after which such a folder, left by a killed process, is removed.
_STALE_SECONDS = 24 * 3600.0


class CompileCache:
    """The cache entries of one graph. A `key` is the strings that an entry depends on, the runtime first."""

    def __init__(self, directory: Path, graph: str, check_files: Callable[[], None] = lambda: None) -> None:
        """Create the directory if it is missing.

        Args:
            directory: of all graphs' entries.
            graph: identifies the graph's bytes: see `graph_id`.
            check_files: raises `IntegrityError` unless the graph's files are as exported; to be called before
                they are read.

        Raises:
            OutputError: `directory` does not exist and cannot be created.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot use {directory} as a cache ({error.strerror}); give a directory, or a path where "
                "one can be created"
            ) from error
        self._directory = directory
        self._graph = graph
        self.check_files = check_files

    def find(self, *key: str) -> Path | None:
        """Return the folder stored under this key, its files as they were written; None if there is none."""
        folder = self._folder(key)
        if not os.path.lexists(folder):
            return None
        if self._is_intact(folder, key):
            return folder
        self.discard(*key)
        return None

    def store(self, write: Callable[[Path], None], *key: str) -> Path | None:
        """Let `write` fill a folder and store it under this key; returns its path, or None if that failed.

        Any error, of `write` or of the file system, becomes a `SamEdgeWarning`: the model runs without cache.
        """
        import shutil
        import tempfile

        folder = self._folder(key)
        partial = None
        try:
            self._remove_stale()
            partial = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY_PREFIX}partial.", dir=self._directory))
            write(partial)
            files = {name: checksum(partial / name) for name in _list_files(partial)}
            sidecar = {"graph": self._graph, "facts": list(key), "files": files}
            (partial / _SIDECAR).write_text(json.dumps(sidecar, indent=1), "utf-8")
            try:
                partial.rename(folder)
            except OSError:
                # Another process was faster, or left a damaged entry.
                if self.find(*key) is None:
                    partial.rename(folder)
            return folder
        except Exception as error:
            reason = " ".join(str(error).split())
            warnings.warn(
                f"nothing was stored in the cache {self._directory} ({reason}); the model was loaded without",
                SamEdgeWarning,
                stacklevel=2,
            )
            return None
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)

    def discard(self, *key: str) -> None:
        """Remove what is stored under this key, as far as the directory's permissions allow."""
        import shutil
        import tempfile

        # Renamed first, so that no other process finds half of it.
        with suppress(OSError):
            discarded = tempfile.mkdtemp(prefix=f"{_TEMPORARY_PREFIX}discarded.", dir=self._directory)
            with suppress(OSError):
                self._folder(key).rename(Path(discarded) / "entry")
            shutil.rmtree(discarded, ignore_errors=True)

    def _folder(self, key: tuple[str, ...]) -> Path:
        text = json.dumps([self._graph, *key])
        return self._directory / f"{key[0]}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _is_intact(self, folder: Path, key: tuple[str, ...]) -> bool:
        try:
            sidecar = json.loads((folder / _SIDECAR).read_bytes())
            files = sidecar["files"]
            return bool(
                sidecar["graph"] == self._graph
                and sidecar["facts"] == list(key)
                and sorted(files) == _list_files(folder)
                and all(checksum(folder / name) == expected for name, expected in files.items())
            )
        except Exception:  # a foreign file may hold anything
            return False

    def _remove_stale(self) -> None:
        import shutil
        import time

        for folder in self._directory.glob(f"{_TEMPORARY_PREFIX}*"):
            with suppress(OSError):
                if folder.is_dir() and time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)


class WorkingCopy:
    """A private copy of a cache entry, for runtimes that read and write their cache at any time.

    It starts with the entry's files; `save` stores what it holds now.
    """

    def __init__(self, cache: CompileCache, *key: str) -> None:
        import shutil
        import tempfile

        self._cache, self._key = cache, key
        self.path = Path(tempfile.mkdtemp(prefix="sam-edge-"))
        stored = cache.find(*key)
        if stored is not None:
            with suppress(OSError):
                shutil.copytree(stored, self.path, dirs_exist_ok=True)
        (self.path / _SIDECAR).unlink(missing_ok=True)
        self._saved = self._state()

    def save(self) -> None:
        """Store the folder's contents if they have changed."""
        state = self._state()
        if state and state != self._saved:
            self._saved = state
            self._cache.discard(*self._key)
            self._cache.store(lambda to: _copy(self.path, to), *self._key)

    def close(self) -> None:
        """Save, then remove the folder."""
        import shutil

        self.save()
        shutil.rmtree(self.path, ignore_errors=True)

    def _state(self) -> list[tuple[str, int, int]]:
        stats = [(name, (self.path / name).stat()) for name in _list_files(self.path)]
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def checksum(path: Path) -> str:
    """Return a file's size and CRC-32, which detect damage in a third of SHA-256's time."""
    with path.open("rb", buffering=0) as file:
        if not os.fstat(file.fileno()).st_size:
            return "0-00000000"
        # In one call, so that other threads run meanwhile.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
            return f"{len(contents)}-{zlib.crc32(contents):08x}"


def graph_id(root: Path, variant: Variant | ClipVariant, graph: str, checked: bool) -> str:
    """Identify a graph's bytes: a hash of the SHA-256 of every file of its variant.

    Where the files were not compared with the manifest (`checked` is False), each file's time and size count
    too: a file that was changed since makes another graph.
    """
    facts: list[Any] = [graph, *((file.path, file.sha256) for file in variant.files)]
    if not checked:
        for file in variant.files:
            with suppress(OSError):
                stat = (root / file.path).stat()
                facts.append((stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@cache
def processor_id() -> str:
    """Identify this processor's model and instruction set, which compiled graphs are laid out for."""
    import platform

    facts = [platform.system(), platform.machine()]
    if sys.platform != "linux":
        facts.append(platform.processor())
    else:
        # On Linux, `platform.processor` runs a program and says less.
        with suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
            fields = ("flags", "features", "model name", "cpu part", "isa")
            facts += sorted({line for line in lines if line.casefold().startswith(fields)})
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _list_files(folder: Path) -> list[str]:
    """List every file below `folder` except the sidecar, by its relative name."""
    found = [
        Path(root, name).relative_to(folder).as_posix()
        for root, _, names in os.walk(folder)
        for name in names
    ]
    return sorted(name for name in found if name != _SIDECAR)


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target, dirs_exist_ok=True)
