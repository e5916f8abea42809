"""Measure `sam_edge_tiny` on 500 held-out generated scenes: one click, and a box.

    python -m tools.training.evaluate [--assets DIR] [--checkpoint FILE] [--imgsz PIXELS] [--json]

With `--assets` the scenes are made of held-out photographs and cut-outs; without, of the photographs
that travel with the package and of textured shapes only, so that anyone can repeat it. The click is
the point of the object farthest from its edge (the paper's section 7.1), the box the object's own; the
mask is the highest-scored of the three, compared at the scene's resolution.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.export.checkpoints.resize import resize
from sam_edge.export.reference.golden import Reference
from sam_edge.imaging.metrics import boundary_iou, iou
from sam_edge.models.catalogue import CATALOGUE, HERE
from tools.training.scenes import held_out_scenes, load_assets, packaged_assets

SEED = 20_231


def centre(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(1, 2) x, y of the pixel farthest from the mask's edge."""
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), mask.shape)
    return np.array([[x, y]], np.float32)


def box_of(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(2, 2) corners of the smallest box around the mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], np.float32)


def evaluate(
    checkpoint: Path, assets: Path | None, count: int, seed: int = SEED, size: int | None = None
) -> dict[str, float]:
    """Mean IoU over one object a scene, for a click and for a box, with the boundary IoU of each; `size` is
    the side of the encoder's input, the model's own if not given."""
    loaded = load_checkpoint(checkpoint)
    if size is not None:
        loaded = resize(loaded, size)
    reference = Reference(build_reference(loaded), loaded.model)
    scenes = held_out_scenes(load_assets(assets, held_out=True) if assets else packaged_assets(), count, seed)
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {
        name: [] for name in ("click_iou", "box_iou", "click_boundary_iou", "box_boundary_iou")
    }
    for scene in scenes:
        seen = reference.encode(scene.image)
        masks = scene.masks()
        mask = masks[rng.integers(len(masks))]
        prompts = {
            "click": (centre(mask), np.ones(1, np.float32)),
            "box": (box_of(mask), np.array([2, 3], np.float32)),
        }
        for name, (coords, labels) in prompts.items():
            _, logits, scores = reference.decode(seen, coords, labels)
            best = logits[1 + int(scores[1:].argmax())] > loaded.model.mask_threshold
            found[f"{name}_iou"].append(iou(best, mask))
            found[f"{name}_boundary_iou"].append(boundary_iou(best, mask))
    return {"scenes": count, **{name: float(np.mean(values)) for name, values in found.items()}}


def main() -> None:
    """Read the arguments, print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=HERE / CATALOGUE["sam_edge_tiny"].checkpoint.file)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--imgsz", type=int, help="as of `sam-edge export`")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = evaluate(args.checkpoint, args.assets, args.scenes, size=args.imgsz)
    if args.json:
        print(json.dumps(result, indent=2))
        return
    made_of = "held-out photographs and cut-outs" if args.assets else "packaged photographs and shapes"
    print(f"{args.scenes} scenes of {made_of}")
    print(f"one click  mean IoU {result['click_iou']:.3f}, boundary IoU {result['click_boundary_iou']:.3f}")
    print(f"a box      mean IoU {result['box_iou']:.3f}, boundary IoU {result['box_boundary_iou']:.3f}")


if __name__ == "__main__":
    main()
