"""Measure `sam_edge_tiny` on 500 held-out generated scenes: one click, and a box.

    python -m tools.training.evaluate [--assets DIR] [--checkpoint FILE] [--imgsz PIXELS] [--json]

With `--assets` the scenes are made of held-out photographs and cut-outs; without, of the photographs in the
package and of textured shapes only, so that anyone can repeat it. The click is the point of the object that
is farthest from its edge (section 7.1 of the SAM paper), the box is the object's bounding box; of the three
masks the one with the highest score is compared, at the scene's resolution.
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
from tools.training.scenes import held_out_assets, held_out_scenes

SEED = 20_231


def centre(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The pixel farthest from the mask's edge: (1, 2) float32, x, y."""
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), mask.shape)
    return np.array([[x, y]], np.float32)


def box_of(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The bounding box of a mask: (2, 2) float32, its corners."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], np.float32)


def evaluate(
    checkpoint: Path, assets: Path | None, count: int, seed: int = SEED, size: int | None = None
) -> dict[str, float]:
    """Evaluate one object of each scene: mean IoU and boundary IoU for a click and for a box.

    Args:
        checkpoint: the file.
        assets: as written by prepare_assets.py; None for the packaged photographs.
        count: how many scenes.
        seed: of the scenes and of the choice of objects.
        size: the side of the encoder's input; None for the model's own.
    """
    loaded = load_checkpoint(checkpoint)
    if size is not None:
        loaded = resize(loaded, size)
    reference = Reference(build_reference(loaded), loaded.model)
    scenes = held_out_scenes(held_out_assets(assets), count, seed)
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {
        name: [] for name in ("click_iou", "box_iou", "click_boundary_iou", "box_boundary_iou")
    }
    for scene in scenes:
        embedding = reference.encode(scene.image)
        masks = scene.masks()
        mask = masks[rng.integers(len(masks))]
        prompts = {
            "click": (centre(mask), np.ones(1, np.float32)),
            "box": (box_of(mask), np.array([2, 3], np.float32)),
        }
        for name, (coords, labels) in prompts.items():
            _, logits, scores = reference.decode(embedding, coords, labels)
            best = logits[1 + int(scores[1:].argmax())] > loaded.model.mask_threshold
            found[f"{name}_iou"].append(iou(best, mask))
            found[f"{name}_boundary_iou"].append(boundary_iou(best, mask))
    return {"scenes": count, **{name: float(np.mean(values)) for name, values in found.items()}}


def main() -> None:
    """Read the arguments, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=HERE / CATALOGUE["sam_edge_tiny"].checkpoint.file)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--imgsz", type=int, help="side of the encoder's input, as for `sam-edge export`")
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
