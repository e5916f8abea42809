"""`sam-edge verify`: hashes, schema, then parity from the golden data, without PyTorch."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..backends import devices_of, find_backends, is_here
from ..bundle.bundle import Bundle, open_bundle
from ..bundle.golden import Golden, read_golden
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
    parser.add_argument("--min-iou", type=float, help="the gate on mean IoU")


def run(args: argparse.Namespace) -> int:
    """0 when every variant that this device is meant for is over its gate, 1 when one is not, or crashes."""
    bundle = open_bundle(args.bundle)
    golden = read_golden(bundle.check_golden())
    for variant in bundle.manifest.variants:
        bundle.check_files(variant)
    files = sum(len(variant["files"]) for variant in bundle.manifest.variants) + 1 + bundle.check_clip()
    rows = [_row(bundle, golden, variant, args) for variant in bundle.manifest.variants]
    measured = [row for row in rows if row["passed"] is not None]
    if not measured and all(row["missing"] for row in rows):
        raise DeviceError(str(rows[0]["reason"]))
    for row in rows:
        del row["missing"]
    if not measured:
        reasons = "; ".join(dict.fromkeys(str(row["reason"]) for row in rows))
        raise BackendError(f"no variant of {args.bundle} can be run here: {reasons}")
    passed = all(row["passed"] and row.get("clip", row)["passed"] for row in measured)
    if args.json:
        print(json.dumps({"passed": passed, "variants": rows}, indent=2))
        return 0 if passed else 1
    print(f"{files} files are as exported; {len(golden.prompts)} prompts:")
    width = max(14, *(len(row["id"]) for row in rows))
    print(f"{'variant':{width}} {'device':13} {'mean IoU':>9} {'p5':>8} {'min':>8} {'boundary':>9}")
    for row in rows:
        if "mean_iou" not in row:
            what = "not measured" if row["passed"] is None else "FAILED"
            print(f"{row['id']:{width}} {what}: {row['reason']}")
            continue
        verdict = "ok" if row["passed"] else "BELOW ITS GATE"
        print(
            f"{row['id']:{width}} {row['device']:13} {row['mean_iou']:9.5f} {row['p5_iou']:8.5f} "
            f"{row['min_iou']:8.5f} {row['boundary_iou']:9.5f}  {verdict}"
        )
        if "clip" in row:
            found, name = row["clip"], "  its CLIP"
            print(
                f"{name:{width + 14}} least cosine {found['min_text_cosine']:.5f} of "
                f"{found['num_texts']} texts, {found['min_image_cosine']:.5f} of {found['num_images']} "
                "images  "
                f"{'ok' if found['passed'] else 'BELOW ITS GATE'}"
            )
    return 0 if passed else 1


def _row(bundle: Bundle, golden: Golden, variant: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """What one variant measures, or why it was not measured; `missing` is whether for want of a device."""
    row: dict[str, Any] = {"id": variant["id"], "device": None, "passed": None, "missing": False}
    readers = [b for b in find_backends(args.backend) if variant["format"] in b.formats]
    if not readers:
        return row | {"reason": f"{args.backend} does not read {variant['format']}"}
    if not is_here(readers[0]):
        return row | {"reason": devices_of(readers[0])[0].reason}
    there = [one for one in devices_of(readers[0]) if one.available and one.is_meant_by(args.device)]
    alike = [one for one in bundle.manifest.variants if one["format"] == variant["format"]]
    if args.device.casefold() not in ("auto", "cpu") and there and variant not in meant_for(alike, there[0]):
        return row | {"reason": f"not made for {there[0].name}; other variants are"}
    device = None if args.device.casefold() == "auto" else next(iter(there), None)
    unmet = unmet_requirement(variant, device)
    if unmet is not None:
        reason = f"{variant['id']} requires {unmet}, which this CPU does not have"
        return row | {"reason": reason, "missing": True}
    try:
        return row | _measured(bundle, golden, variant, args, readers[0].name)
    except CrashError as error:
        return row | {"passed": False, "reason": str(error)}
    except DeviceError as error:
        return row | {"reason": str(error), "missing": True}


def _measured(
    bundle: Bundle, golden: Golden, variant: dict[str, Any], args: argparse.Namespace, backend: str
) -> dict[str, Any]:
    # An export with another gate stays with it.
    gate = args.min_iou if args.min_iou is not None else variant["parity"]["gate"]["mean_iou"]
    with load_variant(bundle, variant, backend, args.device, args.threads, args.cache) as sam:
        report = run_parity(sam, golden, variant["precision"], gate)
        found = {"device": sam.device, **report.to_dict()}
        if bundle.manifest.clip is not None:
            features = read_clip_golden(bundle.check_clip_golden())
            gate = bundle.clip_variant(variant["id"])["parity"]["gate"]
            found["clip"] = run_clip_parity(sam.clip, features, golden.images, variant["precision"], gate)
        return found
