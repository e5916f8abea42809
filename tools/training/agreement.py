"""Compares a bundle's variants with the reference on held-out generated scenes, and times each.

    python -m tools.training.agreement BUNDLE [--variants ID,ID] [--scenes 200] [--assets DIR] [--json]

One object of each scene is prompted with a click and with a box. IoU is between the variant's and the
reference's mask, of the three the one that the reference scores highest. With `--assets` the scenes are made
of held-out photographs and cut-outs, which neither training nor calibration used; without, of the packaged
photographs, which calibrate INT8 where no --calib was given. The variants take turns on each scene.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_edge.backends import find_backends, is_available
from sam_edge.bundle.bundle import open_bundle
from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.export.reference.golden import Reference
from sam_edge.imaging.metrics import boundary_iou, iou
from sam_edge.models.catalogue import CATALOGUE, HERE
from sam_edge.runtime.loading import load_variant
from sam_edge.runtime.sam import Sam
from sam_edge.types import Prompts
from tools.training.evaluate import SEED, box_of, centre
from tools.training.scenes import held_out_assets, held_out_scenes


def agreement(
    bundle_path: Path,
    checkpoint: Path,
    count: int,
    only: Collection[str] | None = None,
    assets: Path | None = None,
    seed: int = SEED,
) -> list[dict[str, Any]]:
    """Compare the variants of a bundle with the reference, on one object of each scene.

    Args:
        bundle_path: the bundle.
        checkpoint: that it was made from.
        count: how many scenes.
        only: ids of variants; None for all that an installed backend can read.
        assets: as written by prepare_assets.py; None for the packaged photographs.
        seed: of the scenes and of the choice of objects.

    Returns:
        For each variant its id, device, encoder_ms, and the mean IoU and boundary IoU of clicks and of boxes.
    """
    loaded = load_checkpoint(checkpoint)
    reference = Reference(build_reference(loaded), loaded.model)
    sams = _load_variants(bundle_path, only)
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in sams}
    rng = np.random.default_rng(seed)
    for scene in held_out_scenes(held_out_assets(assets), count, seed):
        masks = scene.masks()
        mask = masks[rng.integers(len(masks))]
        point, box, one = centre(mask), box_of(mask), np.ones(1, np.float32)
        embedding = reference.encode(scene.image)
        expected = {}
        for kind, coords, labels in (("click", point, one), ("box", box, np.array([2, 3], np.float32))):
            _, logits, scores = reference.decode(embedding, coords, labels)
            best = 1 + int(scores[1:].argmax())
            expected[kind] = best, logits[best] > loaded.model.mask_threshold
        prompts = {
            "click": {"point_coords": point, "point_labels": one},
            "box": {"boxes": box.ravel()},
        }
        for name, sam in sams.items():
            _compare(sam, scene.image, prompts, expected, found[name])
    return [
        {
            "id": name,
            "device": sams[name].device,
            "click_iou": float(np.mean(values["click"])),
            "click_boundary_iou": float(np.mean(values["click_boundary"])),
            "box_iou": float(np.mean(values["box"])),
            "box_boundary_iou": float(np.mean(values["box_boundary"])),
            "encoder_ms": float(np.median(values["encoder_ms"])),
        }
        for name, values in found.items()
    ]


def _load_variants(bundle_path: Path, only: Collection[str] | None) -> dict[str, Sam]:
    bundle = open_bundle(bundle_path)
    backends = [backend for backend in find_backends() if is_available(backend)]
    return {
        variant.id: load_variant(bundle, variant)
        for variant in bundle.manifest.variants
        if (only is None or variant.id in only)
        and any(variant.format in backend.formats for backend in backends)
    }


def _compare(
    sam: Sam,
    image: NDArray[np.uint8],
    prompts: dict[str, dict[str, Any]],
    expected: dict[str, tuple[int, NDArray[np.bool_]]],
    found: dict[str, list[float]],
) -> None:
    """Add one scene's figures to `found`; masks that are empty in the reference do not count."""
    start = time.perf_counter()
    embedding = sam.encode(image)
    found["encoder_ms"].append(1e3 * (time.perf_counter() - start))
    for kind, prompt in prompts.items():
        best, truth = expected[kind]
        if truth.any():
            mask = sam._segment(embedding, Prompts(**prompt), "all").masks[0, best]
            found[kind].append(iou(mask, truth))
            found[f"{kind}_boundary"].append(boundary_iou(mask, truth))


def main() -> None:
    """Read the arguments, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--variants", help="ids as in the manifest, comma-separated (default: all)")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--assets", type=Path, help="as written by prepare_assets.py")
    parser.add_argument("--checkpoint", type=Path, default=HERE / CATALOGUE["sam_edge_tiny"].checkpoint.file)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    only = args.variants.split(",") if args.variants else None
    rows = agreement(args.bundle, args.checkpoint, args.scenes, only, args.assets)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print(
        f"{'variant':14} {'device':13} {'click IoU':>9} {'boundary':>9} {'box IoU':>9} {'boundary':>9} "
        f"{'encoder':>10}"
    )
    for row in rows:
        print(
            f"{row['id']:14} {row['device']:13} {row['click_iou']:9.4f} {row['click_boundary_iou']:9.4f} "
            f"{row['box_iou']:9.4f} {row['box_boundary_iou']:9.4f} {row['encoder_ms']:7.1f} ms"
        )


if __name__ == "__main__":
    main()
