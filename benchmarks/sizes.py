"""Bundles of one model at several input sizes: `python -m sam_edge.benchmarks.sizes BUNDLE ...`.

Each bundle's encoder runs in turn, one picture a turn in random order, in one process, so that a machine that
becomes slower does so for all of them. What a size costs in masks is the manifest's `resized_from`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sam_edge
from sam_edge.errors import SamEdgeError
from sam_edge.golden import read_golden
from sam_edge.resample import resize_bilinear

FULL_HD = (1080, 1920)


def measure(
    bundles: Sequence[Path], precision: str, threads: int, rounds: int, seed: int = 0
) -> list[dict[str, Any]]:
    """One row a bundle: its input's side, GMACs, median milliseconds of a picture of 1920 x 1080 to its
    embedding (`encode_ms`) and of a click on it to masks (`click_ms`), and the manifest's `resized_from`.

    Raises:
        SamEdgeError: no bundle there, or none of that precision for ONNX Runtime.
    """
    with contextlib.ExitStack() as stack:
        sams = [
            stack.enter_context(sam_edge.load(path, "onnxruntime", "cpu", precision, threads))
            for path in bundles
        ]
        photo = read_golden(sams[0].bundle.check_golden()).images[0]
        image = resize_bilinear(photo, FULL_HD)
        prompt: dict[str, Any] = {"point_coords": [[900, 400]], "point_labels": [1]}
        times: list[tuple[list[float], list[float]]] = [([], []) for _ in sams]
        rng = np.random.default_rng(seed)
        for turn in range(rounds + 1):
            for index in rng.permutation(len(sams)):
                start = time.perf_counter()
                embedding = sams[index].encode(image)
                middle = time.perf_counter()
                sams[index].predict(embedding, **prompt)
                end = time.perf_counter()
                if turn:  # the first one warms up
                    times[index][0].append(1e3 * (middle - start))
                    times[index][1].append(1e3 * (end - middle))
        return [
            {
                "bundle": str(path),
                "input_size": sam.manifest.input.size[0],
                "encoder_gmacs": sam.manifest.model.get("encoder_gmacs"),
                "encode_ms": float(np.median(encode)),
                "click_ms": float(np.median(click)),
                "resized_from": sam.manifest.resized_from,
            }
            for path, sam, (encode, click) in zip(bundles, sams, times, strict=True)
        ]


def main() -> int:
    """Measure and print; 0 done, 2 the input was wrong."""
    parser = argparse.ArgumentParser(prog="python -m sam_edge.benchmarks.sizes", description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="+")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        rows = measure(args.bundle, args.precision, args.threads, args.rounds)
    except SamEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(
        "| input | GMACs | picture to embedding, ms | click to masks, ms | IoU with the own size: mean |",
        end="",
    )
    print(" minimum | boundary |\n|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        resized = row["resized_from"]
        cost = ["own size", "", ""]
        if resized is not None:
            cost = [f"{resized[key]:.3f}" for key in ("mean_iou", "min_iou", "boundary_iou")]
        gmacs = "" if row["encoder_gmacs"] is None else f"{row['encoder_gmacs']:.3g}"
        print(
            f"| {row['input_size']} | {gmacs} | {row['encode_ms']:.1f} | {row['click_ms']:.1f} | "
            f"{' | '.join(cost)} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
