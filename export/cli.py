"""`sam-edge export`: a checkpoint to a verified bundle."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sam_edge.axes import PRECISIONS
from sam_edge.axes.registry import load_extensions
from sam_edge.bundle.manifest import ResizedFrom, describe_resize_accuracy
from sam_edge.errors import CheckpointError, SamEdgeError
from sam_edge.models.catalogue import CATALOGUE, DEFAULT_MODEL

from .checkpoints.resize import LARGEST, SMALLEST
from .formats import FORMATS
from .options import Options, check, declared_options, default_precisions
from .pipeline import export_bundle, find_checkpoint
from .progress import Progress
from .targets import TARGETS


class _Lines(Progress):
    """Progress on the terminal: a live line on stderr, and a line for each finished step on stdout."""

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
            print(f"{step:32} {seconds:7.1f} s {_peak_mb():7.0f} MB  {detail}", flush=True)

    def warn(self, message: str) -> None:
        clear = "\r\x1b[K" if self.live else ""
        print(f"{clear}warning: {message}", file=sys.stderr, flush=True)


def _peak_mb() -> float:
    """The most memory this process has held so far; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; those that formats and targets declare come from them."""
    load_extensions()
    parser.add_argument("model", nargs="?", help=f"a name from `sam-edge models` (default: {DEFAULT_MODEL})")
    parser.add_argument("--checkpoint", type=Path, help=".pth or .safetensors; its model is recognised")
    parser.add_argument(
        "--format", default="onnx", help=f"one or more of {','.join(FORMATS.names())} (default: onnx)"
    )
    parser.add_argument("--precision", help=_precision_help())
    parser.add_argument("--out", type=Path, help="the bundle's directory (default: ./MODEL-bundle)")
    parser.add_argument(
        "--imgsz",
        metavar="PIXELS",
        help="side of the encoder's input instead of the model's own, 512 for example: smaller is faster; "
        "how much the masks change is measured and printed",
    )
    gates = ", ".join(f"{one.name} {one.gate.mean:g}" for one in PRECISIONS)
    parser.add_argument(
        "--min-iou", type=float, metavar="IOU", help=f"the gate on mean IoU (default: {gates})"
    )
    parser.add_argument("--calib", type=Path, metavar="DIR", help="images to calibrate INT8 with")
    targets = "; ".join(f"{one.name}: {one.info.title}" for one in TARGETS).replace("%", "%%")
    parser.add_argument(
        "--target",
        default="any",
        help="one or more machines to export for, separated by commas. Instruction sets shape INT8 weights, "
        f"accelerators and browsers get variants of their own. {targets} (default: any)",
    )
    parser.add_argument(
        "--clip",
        type=Path,
        metavar="FOLDER",
        help="a published CLIP, to find masks by a text",
    )
    parser.add_argument(
        "--text-embeddings", action="store_true", help="decoders take text embeddings as tokens of a prompt"
    )
    for option in declared_options():
        option.add_to(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _precision_help() -> str:
    """What precisions there are, which formats have the rarer ones, and the defaults."""
    said = [f"one or more of {','.join(PRECISIONS.names())}"]
    for one in PRECISIONS:
        having = [format.info.title for format in FORMATS if one.name in format.recipes]
        if len(having) < len(FORMATS.names()):
            said.append(f"{one.name} is supported by {' and '.join(having) or 'no format'} only")
    own = [f"{','.join(one.precisions)} with --target {one.name}" for one in TARGETS if one.precisions]
    return f"{'; '.join(said)} (default: {'; '.join(['fp32', *own])})".replace("%", "%%")


def _pixels(text: str | None) -> int | None:
    """The number that `--imgsz` gives; whether the model can take it is checked with its checkpoint."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise SamEdgeError(
            f"--imgsz is {text[:40]!r}; expected a number of pixels from {SMALLEST} to {LARGEST}, a multiple "
            "of what the model's patches and stages need: 16, 32 or 64"
        )
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Export; 0 when the bundle is published."""
    targets = TARGETS.choose(args.target)
    precisions = default_precisions(targets) if args.precision is None else PRECISIONS.choose(args.precision)
    options = Options(
        formats=FORMATS.choose(args.format),
        precisions=precisions,
        targets=targets,
        min_iou=args.min_iou,
        text_embeddings=args.text_embeddings,
        values={name: value for option in declared_options() for name, value in option.read(args).items()},
    )
    check(options, args.clip is not None)
    if args.model is not None and args.model not in CATALOGUE:
        raise CheckpointError(f"unknown model {args.model!r}; known: {', '.join(CATALOGUE)}")
    size = _pixels(args.imgsz)
    name = args.model or (None if args.checkpoint else DEFAULT_MODEL)
    checkpoint = find_checkpoint(name or DEFAULT_MODEL, args.checkpoint)
    stem = name or checkpoint.stem
    out: Path = args.out or Path(f"{stem}-bundle" if size is None else f"{stem}-{size}-bundle")
    lines = _Lines(args.json)
    data = export_bundle(
        out, checkpoint, name, options, calib=args.calib, progress=lines, clip=args.clip, size=size
    )
    resized = data.get("resized_from")
    if args.json:
        result = {"bundle": str(out), "resized_from": resized, "variants": data["variants"]}
        print(json.dumps(result, indent=2))
        return 0
    print(f"bundle {out}")
    if resized is not None:
        accuracy = describe_resize_accuracy(ResizedFrom.from_json(resized))
        print(f"  masks of inputs of {size} pixels {accuracy}")
    print(f"  sam-edge verify {out}")
    if any("context" in variant for variant in data["variants"]):
        print(f"  sam-edge verify {out} --device npu")
    if any("browser" in variant for variant in data["variants"]):
        print(f"  sam-edge serve {out}")
    print(f"  sam-edge predict {out} IMAGE --point X,Y --overlay overlay.png")
    if args.clip is not None:
        print(f"  sam-edge predict {out} IMAGE --text 'a dog' --overlay overlay.png")
    return 0
