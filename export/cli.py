"""`sam-edge export`: a checkpoint to a proven bundle."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from sam_edge.bundle.manifest import ResizedFrom, describe_resize_accuracy
from sam_edge.errors import CheckpointError, SamEdgeError
from sam_edge.models.catalogue import CATALOGUE, DEFAULT_MODEL
from sam_edge.runtime.targets import HEXAGON, WEB

from .checkpoints.resize import LARGEST, SMALLEST
from .context import CPUS, FORMATS, PRECISIONS, PRECISIONS_OF, TARGETS, WITH_BF16, Options
from .optimize.tiling import TILE_MB
from .pipeline import Progress, export_bundle, find_checkpoint


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
    """Add the arguments."""
    parser.add_argument("model", nargs="?", help=f"a name from `sam-edge models` (default: {DEFAULT_MODEL})")
    parser.add_argument("--checkpoint", type=Path, help=".pth or .safetensors; tells its model itself")
    parser.add_argument(
        "--format", default="onnx", help=f"one or more of {','.join(FORMATS)} (default: onnx)"
    )
    parser.add_argument(
        "--precision",
        help=f"one or more of {','.join(PRECISIONS)}; bf16 is OpenVINO's encoders on CPUs that compute in it "
        f"(default: fp32; fp16,int8 with --target {HEXAGON}, fp32,int8 with --target {WEB})",
    )
    parser.add_argument("--out", type=Path, help="the bundle's directory (default: ./MODEL-bundle)")
    parser.add_argument(
        "--imgsz",
        metavar="PIXELS",
        help="the side of the encoder's input instead of the model's own, 512 say: smaller is faster, and "
        "what it costs in masks is measured and said",
    )
    parser.add_argument(
        "--min-iou", type=float, help="the gate on mean IoU (fp32 0.999, fp16 and bf16 0.995, int8 0.95)"
    )
    parser.add_argument("--calib", type=Path, help="a folder of pictures to calibrate INT8 with")
    parser.add_argument(
        "--target",
        default="any",
        help=f"one or more of {','.join(TARGETS)}: CPUs that INT8 weights are made for; Qualcomm's NPU and "
        "browsers, which have variants of their own (default: any)",
    )
    parser.add_argument("--dynamic", action="store_true", help="OpenVINO: any number of prompts and points")
    parser.add_argument("--ios", type=int, choices=(16, 17, 18), default=17, help="Core ML: the oldest iOS")
    parser.add_argument("--w8a8", action="store_true", help="Core ML: activations in INT8 too (iOS 17)")
    parser.add_argument(
        "--compat", choices=["segment-anything"], help="ONNX: also write the published decoder contract"
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
    parser.add_argument(
        "--no-simulator",
        action="store_true",
        help=f"{HEXAGON}: neither compile for the chip nor simulate it, which takes large models long: no "
        "context binaries, and compared on the CPU",
    )
    parser.add_argument(
        "--chunk-mb",
        type=float,
        default=TILE_MB,
        metavar="MB",
        help="how large the scores of a ViT's attention (ONNX), and what is between TinyViT's convolutions, "
        "may be at a time; less takes less memory and more operators (default: %(default)s, which fits a "
        "processor's cache)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _choose(what: str, value: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The comma-separated names in `value`, each once, in the order of `known`."""
    asked = value.split(",")
    for one in asked:
        if one not in known:
            raise SamEdgeError(f"unknown {what} {one!r}; expected one of: {', '.join(known)}")
    return tuple(one for one in known if one in asked)


def _pixels(text: str | None) -> int | None:
    """The number that `--imgsz` gives; whether the model can take it is seen when its checkpoint is read."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise SamEdgeError(
            f"--imgsz is {text[:40]!r}; expected a number of pixels from {SMALLEST} to {LARGEST}, a multiple "
            "of what the model's patches and stages need: 16, 32 or 64"
        )
    return int(text)


def _check_pairs(args: argparse.Namespace, options: Options) -> None:
    """Refuse an option that would change nothing."""
    if args.w8a8 and not ("coreml" in options.formats and "int8" in options.precisions and args.ios >= 17):
        raise SamEdgeError("--w8a8 needs --format coreml, --precision int8 and --ios 17 or 18")
    if args.compat and "onnx" not in options.formats:
        raise SamEdgeError(f"--compat {args.compat} is an ONNX decoder; add onnx to --format")
    if args.dynamic and "openvino" not in options.formats:
        raise SamEdgeError("--dynamic is for OpenVINO decoders; add openvino to --format")
    if "bf16" in options.precisions and not set(WITH_BF16) & set(options.formats):
        raise SamEdgeError("--precision bf16 is of OpenVINO; add openvino to --format, or leave bf16 out")
    if options.precisions == ("bf16",) and not set(options.formats) <= set(WITH_BF16):
        raise SamEdgeError("--precision bf16 is of OpenVINO alone; give another one for the other formats")
    if {"any", "vnni"} <= set(options.targets):
        raise SamEdgeError("--target any and vnni are both of CPUs; give one of the two")
    if not 0 < args.chunk_mb < math.inf:
        raise SamEdgeError(f"--chunk-mb is {args.chunk_mb}; expected a number of megabytes above 0")
    if args.no_simulator and HEXAGON not in options.targets:
        raise SamEdgeError(f"--no-simulator is for --target {HEXAGON}")
    for target, precisions in PRECISIONS_OF.items():
        if target in options.targets:
            _check_target(target, precisions, options)
    if HEXAGON in options.targets:
        if args.clip is not None:
            raise SamEdgeError(f"--clip has no form for {HEXAGON}; leave one of the two out")
        if args.compat and options.targets == (HEXAGON,):
            raise SamEdgeError(
                f"--compat {args.compat} has no form for {HEXAGON}; give --target any,{HEXAGON}"
            )


def _check_target(target: str, precisions: tuple[str, ...], options: Options) -> None:
    """Refuse what a target's own variants do not have."""
    alone = not set(options.targets) & set(CPUS)
    if "onnx" not in options.formats or (alone and options.formats != ("onnx",)):
        raise SamEdgeError(
            f"--target {target} makes ONNX graphs; give --format onnx, and --target any,{target} for the "
            "variants of other devices beside them"
        )
    asked = set(options.precisions)
    if not asked & set(precisions) or (options.targets == (target,) and not asked <= set(precisions)):
        missing = {HEXAGON: "the NPU has no FP32", WEB: "WebAssembly has no FP16"}[target]
        raise SamEdgeError(f"--target {target}: {missing}; give --precision {','.join(precisions)}")


def run(args: argparse.Namespace) -> int:
    """Export; 0 when the bundle is published."""
    targets = _choose("target", args.target, TARGETS)
    if args.precision is None:
        own = {one for target in targets for one in PRECISIONS_OF.get(target, ())} or {"fp32"}
        args.precision = ",".join(one for one in PRECISIONS if one in own)
    options = Options(
        formats=_choose("format", args.format, FORMATS),
        precisions=_choose("precision", args.precision, PRECISIONS),
        min_iou=args.min_iou,
        targets=targets,
        dynamic=args.dynamic,
        ios=args.ios,
        w8a8=args.w8a8,
        compat=args.compat,
        text_embeddings=args.text_embeddings,
        simulator=not args.no_simulator,
        chunk_mb=args.chunk_mb,
    )
    _check_pairs(args, options)
    if args.model is not None and args.model not in CATALOGUE:
        raise CheckpointError(f"unknown model {args.model!r}; known: {', '.join(CATALOGUE)}")
    if args.min_iou is not None and not 0 <= args.min_iou <= 1:
        raise SamEdgeError(f"--min-iou {args.min_iou} is not a share; expected 0 to 1")
    size = _pixels(args.imgsz)
    name = args.model or (None if args.checkpoint else DEFAULT_MODEL)
    checkpoint = find_checkpoint(name or DEFAULT_MODEL, args.checkpoint)
    stem = name or checkpoint.stem
    out: Path = args.out or Path(f"{stem}-bundle" if size is None else f"{stem}-{size}-bundle")
    data = export_bundle(out, checkpoint, name, options, args.calib, _Lines(args.json), args.clip, size)
    resized = data.get("resized_from")
    if args.json:
        result = {"bundle": str(out), "resized_from": resized, "variants": data["variants"]}
        print(json.dumps(result, indent=2))
        return 0
    print(f"bundle {out}")
    if resized is not None:
        print(
            f"  masks of inputs of {size} pixels {describe_resize_accuracy(ResizedFrom.from_json(resized))}"
        )
    print(f"  sam-edge verify {out}")
    if any("context" in variant for variant in data["variants"]):
        print(f"  sam-edge verify {out} --device npu")
    if WEB in targets:
        print(f"  sam-edge serve {out}")
    print(f"  sam-edge predict {out} IMAGE --point X,Y --overlay overlay.png")
    if args.clip is not None:
        print(f"  sam-edge predict {out} IMAGE --text 'a dog' --overlay overlay.png")
    return 0
