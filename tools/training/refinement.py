"""Measures what the second pass of `Sam.refine` gains, on held-out generated scenes of 640 to 1280 pixels.

    python -m tools.training.refinement [BUNDLE] [--scenes N] [--assets DIR] [--json]

Without a bundle, the embedded model is exported first. There are three suites: the objects of `evaluate.py`;
small objects, 4 to 20% of the image; and objects with thin parts: rings, zigzags, and discs with spokes,
whose parts are 2 to 6% of their size thick. One object of each scene is prompted with a click and with its
box, as in `evaluate.py`, and the mask with the highest score is compared before and after: IoU; boundary IoU
(Cheng et al. 2021) in the published band of 2% of the diagonal, and in a band of 0.5%, which shows fine
detail; and the share of masks whose boundary IoU in the narrow band falls, or rises, by more than 0.01.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sam_edge.imaging.metrics import boundary_iou, iou
from sam_edge.runtime.loading import load
from sam_edge.runtime.sam import Sam
from sam_edge.types import Masks
from tools.training.evaluate import SEED, box_of, centre
from tools.training.scenes import Assets, SceneMaker, UInt8, held_out_assets

SIZES = 640, 1280
FINE = 0.005
MEASURES = "iou", "boundary_iou", "fine_boundary_iou"


class SmallObjects(SceneMaker):
    """Scenes of small objects."""

    diameters = 10.0, 50.0
    min_area = 0.0005


class ThinObjects(SceneMaker):
    """Scenes of objects with thin parts."""

    diameters = 50.0, 150.0
    min_area = 0.001

    def _shape(self, diameter: int) -> tuple[UInt8, UInt8]:
        rng = self.rng
        colour, _ = super()._shape(diameter)
        big = 2 * diameter
        width = max(4, int(big * rng.uniform(0.02, 0.06)))
        alpha = Image.new("L", (big, big), 0)
        draw = ImageDraw.Draw(alpha)
        kind, middle = rng.integers(3), big / 2
        if kind == 0:
            draw.ellipse((1, 1, big - 2, big - 2), outline=255, width=width)
        elif kind == 1:
            corners = [tuple(p) for p in rng.uniform(width, big - width, (4, 2)).tolist()]
            draw.line(corners, fill=255, width=width, joint="curve")
        else:
            hub = 0.2 * big
            draw.ellipse((middle - hub, middle - hub, middle + hub, middle + hub), fill=255)
            turn, reach = rng.uniform(0, 2 * math.pi), middle - width
            for spoke in range(int(rng.integers(3, 8))):
                angle = turn + spoke * 2 * math.pi / 7
                tip = middle + reach * math.cos(angle), middle + reach * math.sin(angle)
                draw.line([(middle, middle), tip], fill=255, width=width)
        return colour, np.asarray(alpha.resize((diameter, diameter), Image.Resampling.BOX))


SUITES: dict[str, type[SceneMaker]] = {"objects": SceneMaker, "small": SmallObjects, "thin": ThinObjects}


def measure(sam: Sam, assets: Assets, count: int, seed: int = SEED) -> list[dict[str, Any]]:
    """Measure each suite with each kind of prompt.

    Returns:
        A row for each: `before` and `after` have the means of iou, boundary_iou and fine_boundary_iou;
        `worse` and `better` the share of masks whose fine_boundary_iou changed by more than 0.01; `outcomes`
        counts the outcomes that `Sam.refine` reported.
    """
    rows = []
    for suite, maker in SUITES.items():
        rng = np.random.default_rng(seed)
        scenes = maker(assets, rng)
        found: dict[str, list[Any]] = {"click": [], "box": []}
        outcomes: dict[str, list[str]] = {"click": [], "box": []}
        for _ in range(count):
            scene = scenes.make(int(rng.integers(SIZES[0], SIZES[1] + 1)))
            masks = scene.masks()
            mask = masks[rng.integers(len(masks))]
            embedding = sam.encode(scene.image)
            prompts: dict[str, dict[str, Any]] = {
                "click": {"point_coords": centre(mask)},
                "box": {"boxes": box_of(mask).ravel()},
            }
            for name, prompt in prompts.items():
                first = sam.predict(embedding, **prompt).only_best()
                second = sam.refine(scene.image, first, **prompt)
                found[name].append((_measures(first, mask), _measures(second, mask)))
                outcomes[name].append(second.outcomes[0][0])
        for name, pairs in found.items():
            before, after = np.array(pairs).swapaxes(0, 1)
            gain = after[:, 2] - before[:, 2]
            rows.append(
                {
                    "suite": suite,
                    "prompt": name,
                    "scenes": count,
                    "before": dict(zip(MEASURES, before.mean(0).tolist(), strict=True)),
                    "after": dict(zip(MEASURES, after.mean(0).tolist(), strict=True)),
                    "worse": float((gain < -0.01).mean()),
                    "better": float((gain > 0.01).mean()),
                    "outcomes": {one: outcomes[name].count(one) for one in sorted(set(outcomes[name]))},
                }
            )
    return rows


def _measures(found: Masks, mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    ours = found.masks[0, 0]
    return iou(ours, mask), boundary_iou(ours, mask), boundary_iou(ours, mask, FINE)


def main() -> None:
    """Read the arguments, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?", help="default: the embedded model is exported")
    parser.add_argument("--scenes", type=int, default=150, help="of each suite (default: 150)")
    parser.add_argument("--assets", type=Path, help="as written by prepare_assets.py")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    assets = held_out_assets(args.assets)
    with tempfile.TemporaryDirectory() as folder:
        bundle = args.bundle
        if bundle is None:
            from sam_edge.export.pipeline import export_bundle, find_checkpoint
            from sam_edge.models.catalogue import DEFAULT_MODEL

            bundle = Path(folder) / "bundle"
            export_bundle(bundle, find_checkpoint(DEFAULT_MODEL, None))
        with load(bundle) as sam:
            rows = measure(sam, assets, args.scenes)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{args.scenes} scenes in each suite; before -> after")
    print(f"{'suite':8} {'prompt':6} {'IoU':>14} {'boundary':>14} {'at 0.5%':>14} {'better':>6} {'worse':>6}")
    for row in rows:
        pairs = " ".join(f"{row['before'][m]:.3f} -> {row['after'][m]:.3f}" for m in MEASURES)
        counts = ", ".join(f"{name} {count}" for name, count in row["outcomes"].items())
        print(
            f"{row['suite']:8} {row['prompt']:6} {pairs} {row['better']:6.0%} {row['worse']:6.0%}  ({counts})"
        )


if __name__ == "__main__":
    main()
