"""`sam-edge everything`: masks of everything in a picture, as COCO JSON and as a picture."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import open_bundle
from ..compat.automatic_mask_generator import SamAutomaticMaskGenerator
from ..errors import OutputError
from ..imaging import rle
from ..system.files import write_atomically
from ..types import MaskRecord
from .options import add_bundle, add_load, load_sam

ANNOTATIONS, PICTURE = "annotations.json", "masks.png"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_bundle(parser)
    parser.add_argument("image", type=Path)
    parser.add_argument(
        "--out", type=Path, required=True, help=f"the folder to write {ANNOTATIONS} and {PICTURE} into"
    )
    parser.add_argument("--points-per-side", type=int, default=32, help="points along one side (32)")
    parser.add_argument("--points-per-batch", type=int, default=64, help="points at a time (64)")
    parser.add_argument(
        "--pred-iou-thresh", type=float, help="drop masks with a predicted IoU below (default: the model's)"
    )
    parser.add_argument(
        "--stability-score-thresh",
        type=float,
        help="drop masks that change more than this when the threshold moves (default: the model's)",
    )
    parser.add_argument("--box-nms-thresh", type=float, default=0.7, help="box IoU of duplicates (0.7)")
    parser.add_argument("--crop-n-layers", type=int, default=0, help="layers of crops to run as well (0)")
    parser.add_argument("--crop-n-points-downscale-factor", type=int, default=1)
    parser.add_argument(
        "--min-mask-region-area", type=int, default=0, help="fill holes and drop islands below, in pixels"
    )
    add_load(parser)


def run(args: argparse.Namespace) -> int:
    """Segment; writes both files, prints a summary or JSON."""
    from ..imaging.io import read_image, write_overlay

    manifest = open_bundle(args.bundle).manifest
    image = read_image(args.image)
    if args.image.resolve() == (args.out / PICTURE).resolve():
        raise OutputError(f"cannot write {args.image}: it is read by this command; give another --out")
    with load_sam(args) as sam:
        generator = SamAutomaticMaskGenerator(
            sam,
            points_per_side=args.points_per_side,
            points_per_batch=args.points_per_batch,
            pred_iou_thresh=_or(args.pred_iou_thresh, manifest.pred_iou_thresh),
            stability_score_thresh=_or(args.stability_score_thresh, manifest.stability_score_thresh),
            box_nms_thresh=args.box_nms_thresh,
            crop_n_layers=args.crop_n_layers,
            crop_n_points_downscale_factor=args.crop_n_points_downscale_factor,
            min_mask_region_area=args.min_mask_region_area,
            output_mode="uncompressed_rle",
        )
        _make_folder(args.out)
        found = generator.generate(image, _progress if sys.stderr.isatty() else None)
        backend, device = sam.backend, sam.device
    found.sort(key=lambda record: record["area"], reverse=True)
    write_atomically(args.out / ANNOTATIONS, json.dumps(coco(found, image, args.image.name)).encode())
    write_overlay(args.out / PICTURE, image, _masks(found))
    if args.json:
        result = {
            "image": str(args.image),
            "backend": backend,
            "device": device,
            "count": len(found),
            "annotations": str(args.out / ANNOTATIONS),
            "picture": str(args.out / PICTURE),
        }
        print(json.dumps(result))
        return 0
    print(f"{len(found)} masks ({backend}, {device})")
    if not found:
        print("  none passed: lower --pred-iou-thresh and --stability-score-thresh")
    print(f"  {args.out / ANNOTATIONS}\n  {args.out / PICTURE}")
    return 0


def coco(found: list[MaskRecord], image: NDArray[np.uint8], name: str) -> dict[str, Any]:
    """Records with uncompressed RLEs as a COCO data set of one image and one category."""
    annotations = [
        {
            "id": i,
            "image_id": 1,
            "category_id": 1,
            "segmentation": rle.compress(record["segmentation"]),
            "area": record["area"],
            "bbox": rle.bbox(rle.decode(record["segmentation"])),
            "iscrowd": 0,
            **{key: record[key] for key in ("predicted_iou", "stability_score", "point_coords", "crop_box")},
        }
        for i, record in enumerate(found, start=1)
    ]
    height, width = image.shape[:2]
    return {
        "images": [{"id": 1, "file_name": name, "width": width, "height": height}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }


def _masks(found: list[MaskRecord]) -> Iterator[NDArray[np.bool_]]:
    """One at a time: all of them may not fit in memory. Large ones first, so that small ones stay visible."""
    for record in found:
        yield rle.decode(record["segmentation"])


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out {folder} cannot be made ({error.strerror}); give another folder") from error


def _or(given: float | None, default: float) -> float:
    return default if given is None else given


def _progress(done: int, total: int) -> None:
    end = "\r\x1b[K" if done == total else ""
    print(f"\r{done} of {total} points{end}", end="", file=sys.stderr, flush=True)
