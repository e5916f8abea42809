"""`sam-edge verify`: hashes, schema, then parity from the golden data, without PyTorch."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..backends import get_backend
from ..bundle import open_bundle
from ..errors import BackendError
from ..golden import read_golden
from ..parity import run_parity
from ..sam import load_variant
from .options import add_bundle, add_runtime


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_bundle(parser)
    add_runtime(parser)
    parser.add_argument("--min-iou", type=float, help="the gate on mean IoU")


def run(args: argparse.Namespace) -> int:
    """0 when every variant is over its gate, 1 when one is not."""
    bundle = open_bundle(args.bundle)
    golden = read_golden(bundle.check_golden())
    for variant in bundle.manifest.variants:
        bundle.check_files(variant)
    reads = get_backend(args.backend).formats
    rows = []
    for variant in bundle.manifest.variants:
        row: dict[str, Any] = {"id": variant["id"], "device": None, "passed": None}
        if variant["format"] in reads:
            with load_variant(bundle, variant, args.backend, args.device, args.threads) as sam:
                report = run_parity(sam, golden, variant["precision"], args.min_iou)
                row |= {"device": sam.device, **report.to_dict()}
        rows.append(row)
    measured = [row for row in rows if row["passed"] is not None]
    if not measured:
        raise BackendError(f"no backend here reads a variant of {args.bundle}; see `sam-edge devices`")
    passed = all(row["passed"] for row in measured)
    if args.json:
        print(json.dumps({"passed": passed, "variants": rows}, indent=2))
        return 0 if passed else 1
    files = sum(len(variant["files"]) for variant in bundle.manifest.variants) + 1
    print(f"{files} files are as exported; {len(golden.prompts)} prompts:")
    print(f"{'variant':14} {'device':8} {'mean IoU':>9} {'p5':>8} {'min':>8} {'boundary':>9}")
    for row in rows:
        if row["passed"] is None:
            print(f"{row['id']:14} not measured: no backend here reads it")
            continue
        verdict = "ok" if row["passed"] else "BELOW ITS GATE"
        print(
            f"{row['id']:14} {row['device']:8} {row['mean_iou']:9.5f} {row['p5_iou']:8.5f} "
            f"{row['min_iou']:8.5f} {row['boundary_iou']:9.5f}  {verdict}"
        )
    return 0 if passed else 1
