"""Bundles of one model at several input sizes: `python -m tools.sizes BUNDLE ...`.

A picture to masks with each bundle in turn, in random order, in one process, so that a machine that becomes
slower does so for all of them. What a size costs in masks is the manifest's `resized_from`.
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

from sam_edge.benchmarks.measure.child import load_timed
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.errors import SamEdgeError
from sam_edge.imaging.resample import resize_bilinear
from sam_edge.system.threads import cores

FULL_HD = (1080, 1920)


def measure(
    bundles: Sequence[Path], precision: str, threads: int, rounds: int, seed: int = 0
) -> list[dict[str, Any]]:
    """One row a bundle: its input's side, GMACs, the manifest's `resized_from`, and medians in milliseconds
    for one click on a picture of 1920 x 1080: the encoder's, the decoder's, and from the picture to masks.

    Raises:
        SamEdgeError: no bundle there, or no ONNX variant of that precision in it.
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
    prompt: dict[str, Any] = {"point_coords": [[900, 400]], "point_labels": [1]}
    times: list[list[tuple[float, float, float]]] = [[] for _ in found]
    rng = np.random.default_rng(seed)
    with contextlib.ExitStack() as stack:
        rows = [load_timed(task)[:3] for task in tasks]
        for sam, _, _ in rows:
            stack.enter_context(sam)
        for turn in range(rounds + 1):
            for index in rng.permutation(len(rows)):
                sam, encoder, decoder = rows[index]
                start = time.perf_counter()
                sam.predict(sam.encode(image), **prompt)
                whole = 1e3 * (time.perf_counter() - start)
                taken = encoder.taken(), decoder.taken(), whole
                if turn:  # the first one warms up
                    times[index].append(taken)
    medians = [np.median(samples, axis=0) for samples in times]
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


def main() -> int:
    """Measure and print; 0 done, 2 the input was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.sizes", description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="+")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads are 1 or more")
    try:
        rows = measure(args.bundle, args.precision, args.threads, args.rounds)
    except SamEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(
        "| input | GMACs | encoder, ms | decoder, ms | picture to masks, ms | IoU with the own size: mean |",
        end="",
    )
    print(" minimum | boundary |\n|---:|---:|---:|---:|---:|---:|---:|---:|")
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
