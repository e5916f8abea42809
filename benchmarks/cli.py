"""`sam-edge benchmark`: measures every variant of a bundle on the devices of this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_edge.axes import PRECISIONS
from sam_edge.bundle.bundle import Bundle, open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.cli.options import add_bundle
from sam_edge.errors import ImageError, OutputError, SamEdgeError
from sam_edge.imaging.resample import resize_bilinear
from sam_edge.system.files import write_atomically
from sam_edge.system.threads import cores

from .measure.machine import describe
from .measure.rounds import Plan, Results, describe_row, measure, run_child
from .measure.rows import KINDS, find_rows, pytorch_rows
from .measure.statistics import summarize
from .report.html import render_html
from .report.markdown import render_markdown
from .report.rows import SCHEMA
from .report.table import render_table

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_bundle(parser)
    parser.add_argument(
        "--device",
        default="",
        help=f"one or more of {','.join(KINDS)}, or names of devices (default: all three, but no simulators, "
        "which take minutes a row)",
    )
    parser.add_argument(
        "--backend", default="auto", help="auto, or a name from `sam-edge devices` (default: auto)"
    )
    parser.add_argument(
        "--precision", default="", help=f"one or more of {','.join(PRECISIONS.names())} (default: all)"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="images to compare masks on")
    parser.add_argument(
        "--reference", type=Path, metavar="CHECKPOINT", help="measure the PyTorch reference too"
    )
    parser.add_argument(
        "--ground-truth", type=Path, metavar="COCO", help="COCO JSON with masks for the images in --images"
    )
    parser.add_argument(
        "--duration",
        type=float,
        default=10,
        metavar="S",
        help="seconds that each row is measured for, over all rounds (default: 10)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="rounds that these seconds are divided into (default: 5)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=cores(),
        metavar="N",
        help="threads of each operator (default: all cores)",
    )
    parser.add_argument(
        "--image-size",
        default="1920x1080",
        metavar="WxH",
        help="size of the image that latency is measured on (default: 1920x1080)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the order of rows in each round (default: 0)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the report (default: ./NAME-report)"
    )


def run(args: argparse.Namespace) -> int:
    """Return 0 where every row that is not absent was measured, 1 where one failed, 130 where interrupted."""
    bundle = open_bundle(args.bundle)
    plan = _plan(args, bundle)
    out = args.out or Path(f"{bundle.path.resolve().name}-report")
    out = _folder(out)
    plan = _with_images(args, bundle, plan, out)
    say = _Progress()
    results = measure(plan, run_child, say)
    say.end()
    report = _report(args, bundle, plan, results, out)
    written = _write(report, out)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print(render_table(report))
        print("\n".join(written))
    if results.partial:
        print("interrupted: the report is partial", file=sys.stderr)
        return 130
    return 1 if any(found.failed for found in results.rows) else 0


class _Progress:
    """Shows the current step on one line of stderr, where that is a terminal."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()

    def __call__(self, step: str) -> None:
        if self.live:
            print(f"\r\x1b[K{step} ...", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _plan(args: argparse.Namespace, bundle: Bundle) -> Plan:
    """Turn the arguments into a plan, and check all that can be checked before anything runs."""
    for name in ("rounds", "threads"):
        if getattr(args, name) < 1:
            raise SamEdgeError(f"--{name} is {getattr(args, name)}; expected 1 or more")
    if not 0 < args.duration < 1e6:
        raise SamEdgeError(f"--duration is {args.duration:g}; expected more than 0 seconds")
    if args.ground_truth is not None and args.images is None:
        raise SamEdgeError("--ground-truth needs --images DIR, the folder with its images")
    if args.images is not None and args.reference is None and args.ground_truth is None:
        raise SamEdgeError(
            "--images needs masks to compare with; add --reference CHECKPOINT or --ground-truth COCO"
        )
    asked = list(dict.fromkeys(filter(None, args.device.split(","))))
    devices = asked or list(KINDS)
    precisions = list(filter(None, args.precision.split(",")))
    rows = find_rows(bundle, args.backend, devices, precisions, simulators=bool(asked))
    for row in rows:
        if not row.absent:
            bundle.check_files(bundle.variant(row.id))
    if args.reference is not None:
        from .measure.reference import check_reference

        check_reference(bundle, args.reference)
        rows += pytorch_rows(bundle, devices)
    if args.ground_truth is not None:
        from .measure.ground_truth import read_annotations

        read_annotations(args.ground_truth, args.images)
    golden = bundle.check_golden()
    first = read_golden(golden).images[0]
    return Plan(
        bundle=bundle.path.resolve(),
        rows=rows,
        golden=golden.resolve(),
        image=resize_bilinear(first, _size(args.image_size)),
        seconds=args.duration,
        rounds=args.rounds,
        threads=args.threads,
        seed=args.seed,
        reference=None if args.reference is None else args.reference.resolve(),
        annotations=None if args.ground_truth is None else args.ground_truth.resolve(),
        images=None if args.images is None else args.images.resolve(),
    )


def _with_images(args: argparse.Namespace, bundle: Bundle, plan: Plan, out: Path) -> Plan:
    """Add to a plan the reference's masks of the user's images, and a folder for drawings of the worst."""
    drawings = (out / "worst").resolve() if find_spec("PIL") is not None else None
    if drawings is not None:
        drawings.mkdir(exist_ok=True)
    golden = plan.golden
    if args.images is not None and args.reference is not None:
        from .measure.reference import reference_golden

        images = read_images(args.images)
        golden = reference_golden(args.reference, bundle.manifest, images, out, _Progress()).resolve()
    return replace(plan, golden=golden, drawings=drawings)


def read_images(folder: Path) -> list[NDArray[np.uint8]]:
    """Read every image of a folder, in the order of their names; (H, W, 3) uint8 RGB each.

    Raises:
        ImageError: there is no such folder, it has no images, or one of them cannot be read.
    """
    from sam_edge.imaging.io import read_image

    if not folder.is_dir():
        raise ImageError(f"{folder} is not a directory; --images takes a directory with images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
    if not paths:
        raise ImageError(f"there are no images in {folder}; expected {', '.join(_IMAGE_SUFFIXES)}")
    return [read_image(path) for path in paths]


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and 0 < int(width) < 1e5 and 0 < int(height) < 1e5):
        raise SamEdgeError(f"--image-size is {text!r}; expected WIDTHxHEIGHT, for example 1920x1080")
    return int(height), int(width)


def _folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the directory {out}: {error.strerror}; choose another") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to the directory {out}; choose another")
    return out


def _report(
    args: argparse.Namespace, bundle: Bundle, plan: Plan, results: Results, out: Path
) -> dict[str, Any]:
    gflops = summarize(results.gflops)
    gmacs = bundle.manifest.model.encoder_gmacs
    flops = None if gmacs is None else 2e9 * gmacs
    # The best round shows what the machine can do.
    peak = None if gflops is None else max(gflops["rounds"])
    source = "golden" if args.images is None or args.reference is None else "images"
    rows = [describe_row(found, source, flops, peak) for found in results.rows]
    for row in rows:
        for worst in row["worst"]:
            if worst["image"] is not None:
                worst["image"] = Path(worst["image"]).relative_to(out.resolve()).as_posix()
    return {
        "schema": SCHEMA,
        "partial": results.partial,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe(args.threads) | {"matmul_gflops": gflops},
        "bundle": {
            "path": str(args.bundle),
            "family": bundle.manifest.model.family,
            "name": bundle.manifest.model.name,
            "checkpoint_sha256": bundle.manifest.checkpoint_sha256,
            "input_size": list(bundle.manifest.input.size),
            "resized_from": bundle.manifest.data.get("resized_from"),
            "encoder_flops": flops,
        },
        "settings": {
            "duration_s": args.duration,
            "rounds": args.rounds,
            "seed": args.seed,
            "image_size": list(plan.image.shape[:2]),
            "parity": source,
        },
        "rows": rows,
    }


def _write(report: dict[str, Any], out: Path) -> Sequence[str]:
    """Write report.json, report.md and, with matplotlib, report.html; the lines that name them."""
    write_atomically(out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    write_atomically(out / "report.md", render_markdown(report).encode())
    written = [f"  {out / 'report.json'}", f"  {out / 'report.md'}"]
    try:
        write_atomically(out / "report.html", render_html(report, out).encode())
        written.append(f"  {out / 'report.html'}")
    except SamEdgeError as error:
        written.append(f"  no report.html: {error}")
    return written
