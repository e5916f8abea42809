"""Compares bundles of one model at several input sizes: `python -m tools.sizes BUNDLE ...`.

Measures an image to masks with each bundle, in interleaved rounds in one process. What an input size costs in
accuracy is the manifest's `resized_from`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_edge.benchmarks.measure.interleave import sample_in_rounds
from sam_edge.benchmarks.measure.loading import LoadedRow, load_row
from sam_edge.benchmarks.measure.worker import milliseconds
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.imaging.resample import resize_bilinear
from sam_edge.system.threads import cores
from tools.shared.commands import check_positive, exit_code
from tools.shared.images import FULL_HD


def measure(
    bundles: Sequence[Path], precision: str, threads: int, rounds: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Measure one click on an image of 1920 x 1080 pixels with each bundle.

    Returns:
        For each bundle the side of its input, GMACs, the manifest's `resized_from`, and medians in
        milliseconds: of the encoder, of the decoder, and from the image to masks.

    Raises:
        SamEdgeError: a bundle is missing, or has no ONNX variant of that precision.
    """
    found = [open_bundle(path) for path in bundles]
    tasks = [
        {
            "bundle": str(bundle.path),
            "backend": "onnxruntime",
            "variant": bundle.choose(("onnx",), precision).id,
            "device": "cpu",
            "threads": threads,
        }
        for bundle in found
    ]
    image = resize_bilinear(read_golden(found[0].check_golden()).images[0], FULL_HD)
    with contextlib.ExitStack() as stack:
        rows = [load_row(task) for task in tasks]
        for row in rows:
            stack.enter_context(row.sam)
        work = {index: partial(_click, row, image) for index, row in enumerate(rows)}
        times = sample_in_rounds(work, rounds, order=seed)
    medians = [np.median(samples, axis=0) for samples in times.values()]
    return [
        {
            "bundle": str(bundle.path),
            "input_size": bundle.manifest.input.size[0],
            "encoder_gmacs": bundle.manifest.model.encoder_gmacs,
            "encoder_ms": float(encoder_ms),
            "decoder_ms": float(decoder_ms),
            "end_to_end_ms": float(whole_ms),
            "resized_from": bundle.manifest.data.get("resized_from"),
        }
        for bundle, (encoder_ms, decoder_ms, whole_ms) in zip(found, medians, strict=True)
    ]


def _click(row: LoadedRow, image: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Milliseconds of the encoder, of the decoder, and from the image to masks."""
    whole = milliseconds(lambda: row.sam.predict(row.sam.encode(image), [[900, 400]], [1]))
    return row.encoder.take(), row.decoder.take(), whole


def main() -> int:
    """Print the table; the exit code is 0 done, 2 the input was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.sizes", description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="+")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    return exit_code(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    check_positive(args, "rounds", "threads")
    rows = measure(args.bundle, args.precision, args.threads, args.rounds)
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    columns = ["input", "GMACs", "encoder, ms", "decoder, ms", "image to masks, ms"]
    columns += ["IoU with the model's own size: mean", "minimum", "boundary"]
    print(f"| {' | '.join(columns)} |\n{'|---:' * len(columns)}|")
    for row in rows:
        resized, gmacs = row["resized_from"], row["encoder_gmacs"]
        cost = ["own size", "", ""]
        if resized is not None:
            cost = [f"{resized[key]:.3f}" for key in ("mean_iou", "min_iou", "boundary_iou")]
        times = [f"{row[name]:.1f}" for name in ("encoder_ms", "decoder_ms", "end_to_end_ms")]
        size = [str(row["input_size"]), "" if gmacs is None else f"{gmacs:.3g}"]
        print("| " + " | ".join([*size, *times, *cost]) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
