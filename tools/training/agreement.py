"""How far a bundle's variants agree with the reference on held-out generated scenes, and how fast each is.

    python -m tools.training.agreement BUNDLE [--variants ID,ID] [--scenes 200] [--assets DIR] [--json]

One object a scene, a click and a box each; IoU is between the variant's and the reference's mask, both
the one that the reference scores highest. With `--assets` the scenes are made of held-out photographs and
cut-outs, which neither training nor calibration saw; without, of the packaged photographs, which calibrate
INT8 where no --calib was given. Encoder times are interleaved, so that drift hits all alike.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from sam_edge.backends import find_backends, is_here
from sam_edge.bundle.bundle import open_bundle
from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.export.golden import Reference
from sam_edge.imaging.metrics import boundary_iou, iou
from sam_edge.models.catalogue import CATALOGUE, HERE
from sam_edge.runtime.loading import load_variant
from sam_edge.runtime.sam import Sam
from sam_edge.types import Prompts
from tools.training.evaluate import SEED, box_of, centre
from tools.training.scenes import held_out_scenes, load_assets, packaged_assets


def agreement(
    bundle_path: Path,
    checkpoint: Path,
    count: int,
    only: Collection[str] | None = None,
    assets: Path | None = None,
    seed: int = SEED,
) -> list[dict[str, Any]]:
    """One row for each variant that a backend here reads: id, device, encoder_ms, and the IoU and boundary
    IoU of clicks and boxes."""
    loaded = load_checkpoint(checkpoint)
    reference = Reference(build_reference(loaded), loaded.model)
    bundle = open_bundle(bundle_path)
    backends = [backend for backend in find_backends() if is_here(backend)]
    sams: dict[str, Sam] = {
        variant.id: load_variant(bundle, variant)
        for variant in bundle.manifest.variants
        if (only is None or variant.id in only)
        and any(variant.format in backend.formats for backend in backends)
    }
    found: dict[str, dict[str, list[float]]] = {
        name: {"click": [], "click_boundary": [], "box": [], "box_boundary": [], "seconds": []}
        for name in sams
    }
    rng = np.random.default_rng(seed)
    made_of = load_assets(assets, held_out=True) if assets else packaged_assets()
    for scene in held_out_scenes(made_of, count, seed):
        masks = scene.masks()
        mask = masks[rng.integers(len(masks))]
        point, box, one = centre(mask), box_of(mask), np.ones(1, np.float32)
        seen = reference.encode(scene.image)
        expected = {}
        for kind, coords, labels in (("click", point, one), ("box", box, np.array([2, 3], np.float32))):
            _, logits, scores = reference.decode(seen, coords, labels)
            best = 1 + int(scores[1:].argmax())
            expected[kind] = best, logits[best] > loaded.model.mask_threshold
        for name, sam in sams.items():
            start = time.perf_counter()
            embedding = sam.encode(scene.image)
            found[name]["seconds"].append(time.perf_counter() - start)
            for kind, prompt in (
                ("click", {"point_coords": point, "point_labels": one}),
                ("box", {"boxes": box.ravel()}),
            ):
                best, wanted = expected[kind]
                if wanted.any():
                    mask = sam.segment(embedding, Prompts(**prompt), "all").masks[0, best]
                    found[name][kind].append(iou(mask, wanted))
                    found[name][f"{kind}_boundary"].append(boundary_iou(mask, wanted))
    return [
        {
            "id": name,
            "device": sams[name].device,
            "click_iou": float(np.mean(values["click"])),
            "click_boundary_iou": float(np.mean(values["click_boundary"])),
            "box_iou": float(np.mean(values["box"])),
            "box_boundary_iou": float(np.mean(values["box_boundary"])),
            "encoder_ms": 1000 * float(np.median(values["seconds"])),
        }
        for name, values in found.items()
    ]


def main() -> None:
    """Read the arguments, print the result."""
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
