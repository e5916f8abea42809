"""`sam-edge verify`: hashes, schema, then parity from the golden data, without PyTorch."""

from __future__ import annotations

import argparse
import json

from ..bundle import open_bundle
from ..golden import read_golden
from ..parity import run_parity
from ..sam import load
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
    rows = []
    for variant in bundle.manifest.variants:
        with load(args.bundle, args.backend, args.device, variant["precision"], args.threads, False) as sam:
            report = run_parity(sam, golden, variant["precision"], args.min_iou)
            rows.append({"id": variant["id"], "device": sam.device, **report.to_dict()})
    passed = all(row["passed"] for row in rows)
    if args.json:
        print(json.dumps({"passed": passed, "variants": rows}, indent=2))
        return 0 if passed else 1
    files = sum(len(variant["files"]) for variant in bundle.manifest.variants) + 1
    print(f"{files} files are as exported; {len(golden.prompts)} prompts:")
    print(f"{'variant':14} {'device':8} {'mean IoU':>9} {'p5':>8} {'min':>8} {'boundary':>9}")
    for row in rows:
        verdict = "ok" if row["passed"] else "BELOW ITS GATE"
        print(
            f"{row['id']:14} {row['device']:8} {row['mean_iou']:9.5f} {row['p5_iou']:8.5f} "
            f"{row['min_iou']:8.5f} {row['boundary_iou']:9.5f}  {verdict}"
        )
    return 0 if passed else 1
