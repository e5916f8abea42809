"""`sam-edge export`: a checkpoint to a proven bundle."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sam_edge.errors import CheckpointError, SamEdgeError
from sam_edge.models.catalogue import CATALOGUE, DEFAULT_MODEL

from .pipeline import FORMATS, PRECISIONS, Progress, export_bundle, find_checkpoint


class _Lines(Progress):
    """A live line on a terminal's stderr, and one line a finished step on stdout."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty()

    def begin(self, step: str) -> None:
        if self.live:
            print(f"\r\x1b[K{step} ...", end="", file=sys.stderr, flush=True)

    def end(self, step: str, seconds: float, detail: str) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if not self.quiet:
            print(f"{step:32} {seconds:7.1f} s  {detail}", flush=True)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", nargs="?", help=f"a name from `sam-edge models` (default: {DEFAULT_MODEL})")
    parser.add_argument("--checkpoint", type=Path, help=".pth or .safetensors; tells its model itself")
    parser.add_argument("--format", default="onnx", help=f"of {', '.join(FORMATS)}")
    parser.add_argument("--precision", default="fp32", help=f"of {', '.join(PRECISIONS)}")
    parser.add_argument("--out", type=Path, help="the bundle's directory (default: ./MODEL-bundle)")
    parser.add_argument("--min-iou", type=float, help="the gate on mean IoU (fp32: 0.999)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _choose(what: str, value: str, known: tuple[str, ...]) -> None:
    for one in value.split(","):
        if one not in known:
            raise SamEdgeError(f"unknown {what} {one!r}; expected one of: {', '.join(known)}")


def run(args: argparse.Namespace) -> int:
    """Export; 0 when the bundle is published."""
    _choose("format", args.format, FORMATS)
    _choose("precision", args.precision, PRECISIONS)
    if args.model is not None and args.model not in CATALOGUE:
        raise CheckpointError(f"unknown model {args.model!r}; known: {', '.join(CATALOGUE)}")
    if args.min_iou is not None and not 0 <= args.min_iou <= 1:
        raise SamEdgeError(f"--min-iou {args.min_iou} is not a share; expected 0 to 1")
    name = args.model or (None if args.checkpoint else DEFAULT_MODEL)
    checkpoint = find_checkpoint(name or DEFAULT_MODEL, args.checkpoint)
    out: Path = args.out or Path(f"{name or checkpoint.stem}-bundle")
    data = export_bundle(out, checkpoint, name, args.min_iou, _Lines(args.json))
    if args.json:
        print(json.dumps({"bundle": str(out), "variants": data["variants"]}, indent=2))
        return 0
    print(f"bundle {out}")
    print(f"  sam-edge verify {out}")
    print(f"  sam-edge predict {out} IMAGE --point X,Y --overlay overlay.png")
    return 0
