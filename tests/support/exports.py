"""Bundles of the embedded model that several test modules read: each is exported once in a run.

The processes of pytest-xdist share them. `SAM_EDGE_TEST_BUNDLES` names a folder to keep them in: `make test`
gives one, in which the tests of the page find theirs too. Who works on tests may keep such a folder between
runs for as long as the exporter does not change.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from sam_edge.cli import main


def shared_folder(tmp_path_factory) -> Path:
    """The folder of this run's shared bundles."""
    named = os.environ.get("SAM_EDGE_TEST_BUNDLES")
    if named:
        folder = Path(named).absolute()
    else:
        base = tmp_path_factory.getbasetemp()
        # Each process of pytest-xdist has a folder of its own below the run's.
        folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bundles"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_once(path: Path, make: Callable[[Path], object]) -> Path:
    """`path`, made whole by the first process that asks for it while the others wait."""
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_name(f"{path.name}.unfinished")
            make(unfinished)
            unfinished.rename(path)
    return path


def export_once(folder: Path, name: str, *arguments: str) -> Path:
    """The bundle that `sam-edge export` with these arguments makes; do not change it."""

    def export(out):
        assert main(["export", *arguments, "--out", str(out)]) == 0

    return make_once(folder / name, export)
