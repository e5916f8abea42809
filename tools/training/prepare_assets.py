"""Turns folders of images into the arrays that scenes are made of.

    python -m tools.training.prepare_assets --cutouts DIR --photos DIR --out DIR

`--cutouts` holds images of single things with transparency, `--photos` photographs of anything.
models/README.md says which were used for the embedded model, and where they come from.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CUTOUT_SIZE = 160
PHOTO_SIZE = 384
CROPS_PER_PHOTO = 6
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
# Skin tones of the same hand are duplicates, and letters on a coloured square have no outline to learn.
SKIPPED = re.compile(r"1f3f[b-f]|^1f1|-20e3|^1f5[5-6]")


def image_files(folder: Path) -> list[Path]:
    """Every image below `folder`, in a fixed order."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def read_cutout(path: Path) -> NDArray[np.uint8] | None:
    """A cut-out cropped to its alpha, centred on a square: (D, D, 4) uint8 RGBA; None without an outline."""
    with Image.open(path) as opened:
        image = opened.convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox()
    if box is None or image.getchannel("A").getextrema()[0] == 255:
        return None
    image = image.crop(box)
    side = max(image.size)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square.resize((CUTOUT_SIZE, CUTOUT_SIZE), Image.Resampling.LANCZOS))


def read_crops(path: Path, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Square crops of a photograph at several scales, (S, S, 3) uint8 RGB each."""
    with Image.open(path) as opened:
        opened.draft("RGB", (1600, 1600))
        image = opened.convert("RGB")
    image.thumbnail((1600, 1600))
    crops = []
    for _ in range(CROPS_PER_PHOTO):
        side = int(min(image.size) * rng.uniform(0.35, 1))
        x = int(rng.integers(image.width - side + 1))
        y = int(rng.integers(image.height - side + 1))
        crop = image.crop((x, y, x + side, y + side))
        crops.append(np.asarray(crop.resize((PHOTO_SIZE, PHOTO_SIZE), Image.Resampling.LANCZOS)))
    return crops


def main() -> None:
    """Read the arguments and write the arrays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    kept = [p for p in image_files(args.cutouts) if not SKIPPED.search(p.stem)]
    cutouts = [c for c in map(read_cutout, kept) if c is not None]
    crops, sources = [], []
    for number, path in enumerate(image_files(args.photos)):
        with Image.open(path) as opened:
            if min(opened.size) < PHOTO_SIZE:
                continue
        for crop in read_crops(path, rng):
            crops.append(crop)
            sources.append(number)
    np.save(args.out / "cutouts.npy", np.stack(cutouts))
    np.save(args.out / "photos.npy", np.stack(crops))
    np.save(args.out / "photo_sources.npy", np.array(sources))
    print(f"{len(cutouts)} cut-outs, {len(crops)} crops of {len(set(sources))} photographs")


if __name__ == "__main__":
    main()
