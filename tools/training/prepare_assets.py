"""Turn folders of pictures into the arrays that scenes are made of.

    python -m tools.training.prepare_assets --cutouts DIR --photos DIR --out DIR

`--cutouts` holds pictures of single things with transparency, `--photos` photographs of anything.
models/README.md says which were used for the embedded model and where they come from.
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
# Five skin tones of one hand are one thing, and letters on a coloured square teach little.
SKIPPED = re.compile(r"1f3f[b-f]|^1f1|-20e3|^1f5[5-6]")


def pictures(folder: Path) -> list[Path]:
    """Every picture below `folder`, in a fixed order."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def read_cutout(path: Path) -> NDArray[np.uint8] | None:
    """The thing cropped to its alpha and centred on a square, or None if it has no outline."""
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    box = picture.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox()
    if box is None or picture.getchannel("A").getextrema()[0] == 255:
        return None
    picture = picture.crop(box)
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(square.resize((CUTOUT_SIZE, CUTOUT_SIZE), Image.Resampling.LANCZOS))


def read_crops(path: Path, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Square crops of one photograph, at several scales."""
    with Image.open(path) as opened:
        opened.draft("RGB", (1600, 1600))
        picture = opened.convert("RGB")
    picture.thumbnail((1600, 1600))
    crops = []
    for _ in range(CROPS_PER_PHOTO):
        side = int(min(picture.size) * rng.uniform(0.35, 1))
        x = int(rng.integers(picture.width - side + 1))
        y = int(rng.integers(picture.height - side + 1))
        crop = picture.crop((x, y, x + side, y + side))
        crops.append(np.asarray(crop.resize((PHOTO_SIZE, PHOTO_SIZE), Image.Resampling.LANCZOS)))
    return crops


def main() -> None:
    """Read the arguments and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    kept = [p for p in pictures(args.cutouts) if not SKIPPED.search(p.stem)]
    cutouts = [c for c in map(read_cutout, kept) if c is not None]
    crops, sources = [], []
    for number, path in enumerate(pictures(args.photos)):
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
