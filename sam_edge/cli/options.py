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


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Add BUNDLE and --json."""
    parser.add_argument("bundle", type=Path, help="a directory made by `sam-edge export`")
    add_json(parser)


def add_image(parser: argparse.ArgumentParser) -> None:
    """Add IMAGE."""
    parser.add_argument("image", type=Path, help="an image file, such as JPEG or PNG")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --backend and --device; backends check the names, since other packages may add some."""
    parser.add_argument(
        "--backend", default="auto", help="auto, or a name from `sam-edge devices` (default: auto)"
    )
    parser.add_argument(
        "--device",
        default="auto",
        help=f"{', '.join(DEVICES)}, or a name from `sam-edge devices`; auto is the CPU (default: auto)",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add --precision."""
    parser.add_argument(
        "--precision",
        default="auto",
        choices=_Precisions(),
        help="the variant's precision; auto is the most exact that the bundle has (default: auto)",
    )


class _Precisions:
    """ "auto" and every precision; other packages' are looked for when one is asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter(("auto", *PRECISIONS.names()))

    def __contains__(self, name: object) -> bool:
        return name == "auto" or name in PRECISIONS


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add --backend, --device, --threads and --cache."""
    add_device(parser)
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads within one operator (default: the backend's choice)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=os.environ.get(CACHE_VARIABLE) or None,
        help=f"keep compiled graphs in this directory, to load faster next time (default: ${CACHE_VARIABLE})",
    )


def add_load(parser: argparse.ArgumentParser) -> None:
    """Add every option of `load_sam`: those of `add_runtime`, --precision and --explain."""
    add_runtime(parser)
    add_precision(parser)
    parser.add_argument(
        "--explain",
        action="store_true",
        help="print on stderr why each backend, device and variant was chosen or not",
    )


def load_sam(args: argparse.Namespace) -> Sam:
    """Load the bundle with the options of `add_load`."""
    return load(
        args.bundle,
        args.backend,
        args.device,
        args.precision,
        args.threads,
        explain=args.explain,
        cache_dir=args.cache,
    )
