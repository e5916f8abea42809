"""`sam-edge verify`: check schema and hashes, then mask parity with the golden data; no PyTorch needed."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..backends import devices_of, find_backends, is_available
from ..bundle.bundle import Bundle, open_bundle
from ..bundle.golden import Golden, read_golden
from ..bundle.variant import Variant
from ..errors import BackendError, CrashError, DeviceError
from ..runtime.loading import load_variant
from ..runtime.targets import meant_for, unmet_requirement
from ..verify.clip_parity import read_clip_golden, run_clip_parity
from ..verify.parity import run_parity
from .options import add_bundle, add_runtime


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_bundle(parser)
    add_runtime(parser)
    parser.add_argument(
        "--min-iou", type=float, metavar="IOU", help="the mean IoU to reach (default: as at export)"
    )


def run(args: argparse.Namespace) -> int:
    """Verify every variant that the device can run: 0 if all pass their gates, 1 if one fails or crashes."""
    bundle = open_bundle(args.bundle)
    golden = read_golden(bundle.check_golden())
    for variant in bundle.manifest.variants:
        bundle.check_files(variant)
    files = sum(len(variant.files) for variant in bundle.manifest.variants) + 1 + bundle.check_clip()
    rows = [_row(bundle, golden, variant, args) for variant in bundle.manifest.variants]
    measured = [row for row in rows if row["passed"] is not None]
    if not measured and all(row["missing"] for row in rows):
        raise DeviceError(str(rows[0]["reason"]))
    for row in rows:
        del row["missing"]
    if not measured:
        reasons = "; ".join(dict.fromkeys(str(row["reason"]) for row in rows))
        raise BackendError(f"no variant of {args.bundle} can be run on this machine: {reasons}")
    passed = all(row["passed"] and row.get("clip", row)["passed"] for row in measured)
    if args.json:
        print(json.dumps({"passed": passed, "variants": rows}, indent=2))
    else:
        print(f"{files} files are as exported; {len(golden.prompts)} prompts:")
        _print_table(rows)
    return 0 if passed else 1


def _print_table(rows: list[dict[str, Any]]) -> None:
    width = max(14, *(len(row["id"]) for row in rows))
    print(f"{'variant':{width}} {'device':13} {'mean IoU':>9} {'p5':>8} {'min':>8} {'boundary':>9}")
    for row in rows:
        if "mean_iou" not in row:
            what = "not measured" if row["passed"] is None else "FAILED"
            print(f"{row['id']:{width}} {what}: {row['reason']}")
            continue
        print(
            f"{row['id']:{width}} {row['device']:13} {row['mean_iou']:9.5f} {row['p5_iou']:8.5f} "
            f"{row['min_iou']:8.5f} {row['boundary_iou']:9.5f}  {_verdict(row)}"
        )
        if "clip" in row:
            clip = row["clip"]
            print(
                f"{'  CLIP':{width + 14}} minimum cosine {clip['min_text_cosine']:.5f} over "
                f"{clip['num_texts']} texts, {clip['min_image_cosine']:.5f} over {clip['num_images']} "
                f"images  {_verdict(clip)}"
            )


def _verdict(row: dict[str, Any]) -> str:
    return "ok" if row["passed"] else "BELOW ITS GATE"


def _row(bundle: Bundle, golden: Golden, variant: Variant, args: argparse.Namespace) -> dict[str, Any]:
    """Verify one variant; returns its row of --json, and `missing`: whether the device is not available."""
    row: dict[str, Any] = {"id": variant.id, "device": None, "passed": None, "missing": False}
    readers = [b for b in find_backends(args.backend) if variant.format in b.formats]
    if not readers:
        return row | {"reason": f"{args.backend} does not read {variant.format}"}
    if not is_available(readers[0]):
        return row | {"reason": devices_of(readers[0])[0].reason}
    devices = [one for one in devices_of(readers[0]) if one.available and one.matches(args.device)]
    alike = [one for one in bundle.manifest.variants if one.format == variant.format]
    named = args.device.casefold() not in ("auto", "cpu")
    if named and devices and variant not in meant_for(alike, devices[0]):
        return row | {"reason": f"not exported for {devices[0].name}; other variants are"}
    device = None if args.device.casefold() == "auto" else next(iter(devices), None)
    unmet = unmet_requirement(variant, device)
    if unmet is not None:
        return row | {"reason": f"{variant.id} {unmet}", "missing": True}
    try:
        return row | _measure(bundle, golden, variant, args, readers[0].name)
    except CrashError as error:
        return row | {"passed": False, "reason": str(error)}
    except DeviceError as error:
        return row | {"reason": str(error), "missing": True}


def _measure(
    bundle: Bundle, golden: Golden, variant: Variant, args: argparse.Namespace, backend: str
) -> dict[str, Any]:
    # A bundle exported with another gate keeps it.
    gate = args.min_iou
    if gate is None and variant.parity is not None:
        gate = variant.parity.gate["mean_iou"]
    with load_variant(bundle, variant, backend, args.device, args.threads, args.cache) as sam:
        report = run_parity(sam, golden, variant.precision, gate)
        row = {"device": sam.device, **report.to_json()}
        if bundle.manifest.clip is not None:
            features = read_clip_golden(bundle.check_clip_golden())
            recorded = bundle.clip_variant(variant.id).parity
            gate = None if recorded is None else recorded.gate
            clip_report = run_clip_parity(sam.clip, features, golden.images, variant.precision, gate)
            row["clip"] = clip_report.to_json()
        return row
