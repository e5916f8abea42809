"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from ..axes import PRECISIONS
from ..backends import DEVICES
from ..runtime.loading import CACHE_VARIABLE, load
from ..runtime.sam import Sam


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """BUNDLE and --json."""
    parser.add_argument("bundle", type=Path, help="a directory made by `sam-edge export`")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """--backend, --device, --threads, --cache."""
    add_choice(parser)
    parser.add_argument("--threads", type=int, help="threads within one operator")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=os.environ.get(CACHE_VARIABLE) or None,
        help=f"keep what backends compile there, to start sooner the next time (default: ${CACHE_VARIABLE})",
    )


def add_choice(parser: argparse.ArgumentParser) -> None:
    """--backend, --device: names are checked by the backends, of which other packages may add some."""
    parser.add_argument("--backend", default="auto", help="auto, or a name from `sam-edge devices`")
    parser.add_argument(
        "--device",
        default="auto",
        help=f"{', '.join(DEVICES)}, or a device's name from `sam-edge devices`; auto is the CPU",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """--precision."""
    parser.add_argument("--precision", default="auto", choices=_Precisions())


class _Precisions:
    """ "auto" and every precision; other packages' are looked for when one is asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter(("auto", *PRECISIONS.names()))

    def __contains__(self, name: object) -> bool:
        return name == "auto" or name in PRECISIONS


def add_load(parser: argparse.ArgumentParser) -> None:
    """--precision and --explain as well: everything that `load_sam` takes."""
    add_runtime(parser)
    add_precision(parser)
    parser.add_argument(
        "--explain", action="store_true", help="say on stderr why each backend and device was taken or not"
    )


def load_sam(args: argparse.Namespace) -> Sam:
    """The bundle, as the options of `add_load` say."""
    return load(
        args.bundle,
        args.backend,
        args.device,
        args.precision,
        args.threads,
        explain=args.explain,
        cache_dir=args.cache,
    )
