"""`sam-edge download`: download a published checkpoint."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from ..errors import CheckpointError
from .options import add_json


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", help="a name from `sam-edge models`")
    parser.add_argument(
        "--to",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="an existing directory (default: the current one)",
    )
    add_json(parser)


class _ProgressLine:
    """A progress line on stderr, if that is a terminal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.live = sys.stderr.isatty()
        self.shown = 0.0

    def show(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self.live and (now - self.shown > 0.2 or done == total):
            self.shown = now
            share = f" of {total / 1e6:.1f} MB, {done / total:.0%}" if total else " MB"
            print(f"\r\x1b[K{self.name} {done / 1e6:.1f}{share}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> int:
    """Download the checkpoint, unless it is there already, and print its path."""
    from sam_edge.models.catalogue import CATALOGUE
    from sam_edge.models.download import download

    if args.model not in CATALOGUE:
        raise CheckpointError(f"unknown model {args.model!r}; known: {', '.join(CATALOGUE)}")
    checkpoint = CATALOGUE[args.model].checkpoint
    line = _ProgressLine(checkpoint.file)
    try:
        path = download(checkpoint, args.to, line.show)
    finally:
        line.end()
    checked = checkpoint.sha256 is not None
    if args.json:
        result = {"model": args.model, "path": str(path), "bytes": path.stat().st_size, "checked": checked}
        print(json.dumps(result, indent=2))
        return 0
    print(f"{path}  {'sha256 is correct' if checked else 'not checked: no hash of this file is known'}")
    print(f"  sam-edge export {args.model} --checkpoint {path}")
    return 0
