"""`sam-edge everything`: segment every object in an image, as COCO JSON and as an overlay."""

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
from .options import add_bundle, add_image, add_load, load_sam

ANNOTATIONS, OVERLAY = "annotations.json", "masks.png"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_bundle(parser)
    add_image(parser)
    parser.add_argument("--out", type=Path, required=True, help=f"the folder for {ANNOTATIONS} and {OVERLAY}")
    parser.add_argument(
        "--points-per-side", type=int, default=32, metavar="N", help="points a side of the grid (default: 32)"
    )
    parser.add_argument(
        "--points-per-batch",
        type=int,
        default=64,
        metavar="N",
        help="points decoded at the same time (default: 64)",
    )
    parser.add_argument(
        "--pred-iou-thresh",
        type=float,
        metavar="IOU",
        help="drop masks whose predicted IoU is lower (default: the model's)",
    )
    parser.add_argument(
        "--stability-score-thresh",
        type=float,
        metavar="IOU",
        help="drop masks whose stability score is lower: the IoU of the masks at two shifted thresholds "
        "(default: the model's)",
    )
    parser.add_argument(
        "--box-nms-thresh",
        type=float,
        metavar="IOU",
        default=0.7,
        help="box IoU above which the lower-scored mask is dropped as a duplicate (default: 0.7)",
    )
    parser.add_argument(
        "--crop-n-layers",
        type=int,
        metavar="N",
        default=0,
        help="also run on crops: layer i has 2**i crops per side (default: 0)",
    )
    parser.add_argument(
        "--crop-n-points-downscale-factor",
        type=int,
        metavar="N",
        default=1,
        help="points per side are divided by this to the power of the layer (default: 1)",
    )
    parser.add_argument(
        "--min-mask-region-area",
        type=int,
        default=0,
        metavar="PIXELS",
        help="fill holes and remove islands of fewer pixels (default: 0)",
    )
    add_load(parser)


def run(args: argparse.Namespace) -> int:
    """Segment, write both files, print a summary or JSON."""
    from ..imaging.io import read_image, write_overlay

    manifest = open_bundle(args.bundle).manifest
    image = read_image(args.image)
    if args.image.resolve() == (args.out / OVERLAY).resolve():
        raise OutputError(f"cannot write {args.image}: it is read by this command; give another --out")
    with load_sam(args) as sam:
        generator = SamAutomaticMaskGenerator(
            sam,
            points_per_side=args.points_per_side,
            points_per_batch=args.points_per_batch,
            pred_iou_thresh=_given_or(args.pred_iou_thresh, manifest.pred_iou_thresh),
            stability_score_thresh=_given_or(args.stability_score_thresh, manifest.stability_score_thresh),
            box_nms_thresh=args.box_nms_thresh,
            crop_n_layers=args.crop_n_layers,
            crop_n_points_downscale_factor=args.crop_n_points_downscale_factor,
            min_mask_region_area=args.min_mask_region_area,
            output_mode="uncompressed_rle",
        )
        _make_folder(args.out)
        found = generator.generate(image, _progress if sys.stderr.isatty() else None)
        backend, device = sam.backend, sam.device
    # Large ones first, so that small ones are drawn over them.
    found.sort(key=lambda record: record["area"], reverse=True)
    write_atomically(args.out / ANNOTATIONS, json.dumps(coco(found, image, args.image.name)).encode())
    write_overlay(args.out / OVERLAY, image, _decode_masks(found))
    if args.json:
        result = {
            "image": str(args.image),
            "backend": backend,
            "device": device,
            "count": len(found),
            "annotations": str(args.out / ANNOTATIONS),
            "picture": str(args.out / OVERLAY),
        }
        print(json.dumps(result))
        return 0
    print(f"{len(found)} masks ({backend}, {device})")
    if not found:
        print("  every mask was dropped: lower --pred-iou-thresh and --stability-score-thresh")
    print(f"  {args.out / ANNOTATIONS}\n  {args.out / OVERLAY}")
    return 0


def coco(found: list[MaskRecord], image: NDArray[np.uint8], name: str) -> dict[str, Any]:
    """Convert records of the mask generator to a COCO data set of one image and one category.

    Args:
        found: records with uncompressed RLEs.
        image: (H, W, 3).
        name: the image's file name.
    """
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


def _decode_masks(found: list[MaskRecord]) -> Iterator[NDArray[np.bool_]]:
    """Yield the masks (H, W) one at a time: all of them may not fit in memory."""
    for record in found:
        yield rle.decode(record["segmentation"])


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--out {folder} cannot be created ({error.strerror}); give another folder"
        ) from error


def _given_or(given: float | None, default: float) -> float:
    return default if given is None else given


def _progress(done: int, total: int) -> None:
    end = "\r\x1b[K" if done == total else ""
    print(f"\r{done} of {total} points{end}", end="", file=sys.stderr, flush=True)
