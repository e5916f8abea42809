"""`sam-edge predict`: segment a picture by points, boxes, a mask or a text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import open_bundle
from ..errors import PromptError
from ..imaging.postprocess import Upscaling
from ..imaging.preprocess import resized_size
from ..runtime.prompts import check_prompts
from ..types import Masks, Prompts
from .options import add_bundle, add_load, load_sam
from .outputs import check_outputs, check_png, mask_row, numbered


def _numbers(text: str, option: str, counts: tuple[int, ...], form: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts:
        raise PromptError(f"{option} {text} is not {form}; expected numbers in pixels")
    return values


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_bundle(parser)
    parser.add_argument("image", type=Path)
    parser.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="X,Y[,LABEL]",
        help="label 1 (default) is foreground, 0 background; all points make one prompt",
    )
    parser.add_argument(
        "--box", action="append", default=[], metavar="X0,Y0,X1,Y1", help="each is one prompt"
    )
    parser.add_argument(
        "--mask",
        type=Path,
        help="a picture of the image's size, light where the object is, or .npy low-res logits",
    )
    parser.add_argument(
        "--text",
        metavar="WORDS",
        help="the masks of everything that fit these words best, by the bundle's CLIP",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="with --text: how many masks (default: 1)")
    parser.add_argument("--threshold", type=float, help="with --text: the least cosine similarity")
    parser.add_argument("--out", type=Path, help="write the mask as PNG; several are numbered -0, -1")
    parser.add_argument("--overlay", type=Path, help="write the image with masks and prompts as PNG")
    parser.add_argument(
        "--multimask",
        action="store_true",
        help="all three masks; otherwise the best one for a single point, the single mask elsewhere",
    )
    parser.add_argument(
        "--refine",
        action="store_true",
        help="a second pass on the crop around each mask: crisper edges, one more encoding a mask",
    )
    parser.add_argument(
        "--min-region-area",
        type=float,
        default=0,
        metavar="PIXELS",
        help="fill smaller holes and remove smaller islands (default: 0, none)",
    )
    add_load(parser)


def run(args: argparse.Namespace) -> int:
    """Segment; prints a table, or JSON, and writes what was asked for."""
    from ..imaging.io import read_image, write_mask, write_overlay

    if args.text is not None:
        from .text import run_text

        return run_text(args)
    if args.top_k is not None or args.threshold is not None:
        raise PromptError("--top-k and --threshold go with --text; give a text, or leave them out")
    if not args.min_region_area >= 0:
        raise PromptError(f"--min-region-area is {args.min_region_area:g}; expected 0 pixels or more")
    points = [_numbers(p, "--point", (2, 3), "X,Y or X,Y,LABEL") for p in args.point]
    boxes = [_numbers(b, "--box", (4,), "X0,Y0,X1,Y1") for b in args.box]
    if points and len(boxes) > 1:
        raise PromptError("points go with at most one --box; give one box, or no points")
    coords = [p[:2] for p in points] or None
    labels = [p[2] if len(p) == 3 else 1 for p in points] or None
    check_png(args.out, args.overlay)
    manifest = open_bundle(args.bundle).manifest
    image = read_image(args.image)
    size = image.shape[0], image.shape[1]
    # Before the encoder runs: a wrong prompt should not cost its seconds.
    space = manifest.coordinate_space
    resized = resized_size(size, space)
    mask_input = None
    if args.mask is not None:
        mask_input = _mask_logits(
            args.mask, size, resized, manifest.coordinate_space.size, manifest.mask_size
        )
    prompts = Prompts(coords, labels, boxes or None, mask_input)
    (checked,) = check_prompts(prompts, size, manifest)
    count = manifest.mask_count - manifest.first_multimask if args.multimask else 1
    outputs = numbered(args.out, len(checked.coords) * count)
    check_outputs(outputs, args.overlay, [args.image, args.mask])
    with load_sam(args) as sam:
        embedding = sam.encode(image)
        ambiguous = len(points) == 1 and not boxes and args.mask is None
        found = sam.predict(embedding, coords, labels, boxes or None, mask_input, args.multimask or ambiguous)
        found = _best_first(found) if args.multimask else found.only_best()
        outcomes = None
        if args.refine:
            found = refined = sam.refine(image, found, coords, labels, boxes or None)
            outcomes = refined.outcomes
        backend, device = sam.backend, sam.device
    if args.min_region_area:
        found = found.cleaned(args.min_region_area)
    kept = list(np.ndindex(found.scores.shape))
    masks = [found.masks[n, m] for n, m in kept]
    rows: list[dict[str, Any]] = [
        {
            **mask_row(n, float(found.scores[n, m]), mask),
            **({} if outcomes is None else {"refinement": outcomes[n][m]}),
        }
        for (n, m), mask in zip(kept, masks, strict=True)
    ]
    for path, mask in zip(outputs, masks, strict=False):
        write_mask(path, mask)
    if args.overlay is not None:
        dots = [(p[0], p[1], int(p[2]) if len(p) == 3 else 1) for p in points]
        write_overlay(args.overlay, image, masks, dots, boxes)
    if args.json:
        result = {"image": str(args.image), "backend": backend, "device": device, "masks": rows}
        print(json.dumps(result))
        return 0
    print(f"{'prompt':>6} {'score':>6} {'area':>9}  bbox x, y, w, h  ({backend}, {device})")
    for row in rows:
        box = ", ".join(str(v) for v in row["bbox"])
        outcome = row.get("refinement", "refined")
        remark = "" if outcome == "refined" else f"  not refined: {outcome}"
        print(f"{row['prompt']:6} {row['score']:6.3f} {row['area']:9}  {box}{remark}")
    return 0


def _best_first(found: Masks) -> Masks:
    """The masks of each prompt in the order of their scores."""
    order = np.arange(len(found.scores))[:, None], np.argsort(-found.scores, axis=1)
    return Masks(found.masks[order], found.scores[order], found.low_res_logits[order])


def _mask_logits(
    path: Path,
    original: tuple[int, int],
    resized: tuple[int, int],
    padded: tuple[int, int],
    low_res: tuple[int, int],
) -> NDArray[np.float32]:
    """A mask file as low-resolution logits (1, h, w)."""
    if path.suffix == ".npy":
        h, w = low_res
        try:
            array = np.load(path, allow_pickle=False)
            if not np.can_cast(array.dtype, np.float64):
                raise ValueError(f"its dtype is {array.dtype}")
            with np.errstate(over="ignore"):
                array = array.astype(np.float32)
            array = array[None] if array.ndim == 2 else array
            if array.shape != (1, h, w) or not np.isfinite(array).all():
                raise ValueError(f"its shape is {array.shape}, or it holds NaN")
        except Exception as error:  # damaged npy data raise nearly anything
            raise PromptError(
                f"--mask {path} cannot be used ({error}); expected .npy of finite logits (1, {h}, {w})"
            ) from error
        return array
    from ..imaging.io import read_image

    picture = read_image(path)
    if picture.shape[:2] != original:
        raise PromptError(
            f"--mask {path} is {picture.shape[1]} x {picture.shape[0]}, the image is {original[1]} x "
            f"{original[0]}; expected the same size"
        )
    logits = np.where(picture.mean(2) > 127, 10.0, -10.0).astype(np.float32)
    return Upscaling(low_res, padded, resized, original).downscale(logits)[None]
