"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..backends import DEVICES, backend_names
from ..bundle import PRECISIONS


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """BUNDLE and --json."""
    parser.add_argument("bundle", type=Path, help="a directory made by `sam-edge export`")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """--backend, --device, --threads."""
    parser.add_argument("--backend", default="auto", choices=["auto", *backend_names()])
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--threads", type=int, help="threads within one operator")


def add_precision(parser: argparse.ArgumentParser) -> None:
    """--precision."""
    parser.add_argument("--precision", default="auto", choices=["auto", *PRECISIONS])
