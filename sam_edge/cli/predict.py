"""`sam-edge predict`: segment objects in an image by points, boxes, a mask or a text."""

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
from .options import add_bundle, add_image, add_load, load_sam
from .outputs import check_outputs, check_png, mask_paths, mask_row


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_bundle(parser)
    add_image(parser)
    _add_prompts(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the mask as PNG; several are numbered -0, -1, ..."
    )
    parser.add_argument(
        "--overlay", type=Path, metavar="FILE", help="write the image with masks and prompts drawn, as PNG"
    )
    parser.add_argument(
        "--multimask",
        action="store_true",
        help="all three masks of each prompt (default: the best of three for one point, else one mask)",
    )
    parser.add_argument(
        "--refine",
        action="store_true",
        help="run again on the crop around each mask, for sharper edges; encodes once more per mask",
    )
    parser.add_argument(
        "--min-region-area",
        type=float,
        default=0,
        metavar="PIXELS",
        help="fill holes and remove islands of fewer pixels (default: 0)",
    )
    add_load(parser)


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="X,Y[,LABEL]",
        help="a point in pixels; LABEL 1 is foreground (default), 0 background; all points are one prompt",
    )
    parser.add_argument(
        "--box",
        action="append",
        default=[],
        metavar="X0,Y0,X1,Y1",
        help="a box in pixels; each box is one prompt",
    )
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="an image of the same size, light where the object is, or low-resolution logits as .npy",
    )
    parser.add_argument(
        "--text",
        metavar="WORDS",
        help="segment everything and print the masks that match this text best, by the bundle's CLIP",
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="with --text: the number of masks (default: 1)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="COSINE",
        help="with --text: the minimum cosine similarity (default: none)",
    )


def run(args: argparse.Namespace) -> int:
    """Segment, write the files, print a table or JSON."""
    from ..imaging.io import read_image, write_mask, write_overlay

    if args.text is not None:
        from .text import run_text

        return run_text(args)
    if not (args.point or args.box or args.mask):
        raise PromptError("no prompt was given; give --point, --box, --mask or --text")
    points, boxes = _parse_prompts(args)
    check_png(args.out, args.overlay)
    manifest = open_bundle(args.bundle).manifest
    image = read_image(args.image)
    size = image.shape[0], image.shape[1]
    # Checked before the encoder runs: a wrong prompt should not cost seconds.
    space = manifest.coordinate_space
    resized = resized_size(size, space)
    mask_input = None
    if args.mask is not None:
        mask_input = _mask_logits(args.mask, size, resized, space.size, manifest.mask_size)
    coords = [p[:2] for p in points] or None
    labels = [p[2] if len(p) == 3 else 1 for p in points] or None
    prompts = Prompts(coords, labels, boxes or None, mask_input)
    (checked,) = check_prompts(prompts, size, manifest)
    count = manifest.mask_count - manifest.first_multimask if args.multimask else 1
    outputs = mask_paths(args.out, len(checked.coords) * count)
    check_outputs(outputs, args.overlay, [args.image, args.mask])
    found, outcomes, backend, device = _predict(args, image, prompts)
    rows = _rows(found, outcomes)
    masks = list(found.masks.reshape(-1, *size))
    for path, mask in zip(outputs, masks, strict=False):
        write_mask(path, mask)
    if args.overlay is not None:
        markers = [(p[0], p[1], int(p[2]) if len(p) == 3 else 1) for p in points]
        write_overlay(args.overlay, image, masks, markers, boxes)
    if args.json:
        result = {"image": str(args.image), "backend": backend, "device": device, "masks": rows}
        print(json.dumps(result))
    else:
        _print_table(rows, backend, device)
        for path in [*outputs, *filter(None, [args.overlay])]:
            print(path)
    return 0


def _parse_prompts(args: argparse.Namespace) -> tuple[list[list[float]], list[list[float]]]:
    """Return the points, [x, y] or [x, y, label], and the boxes.

    Raises:
        PromptError: the options are malformed or do not go together.
    """
    if args.top_k is not None or args.threshold is not None:
        raise PromptError("--top-k and --threshold apply only to --text; give a text, or leave them out")
    if not args.min_region_area >= 0:
        raise PromptError(f"--min-region-area is {args.min_region_area:g}; expected 0 pixels or more")
    points = [_numbers(p, "--point", (2, 3), "X,Y or X,Y,LABEL") for p in args.point]
    boxes = [_numbers(b, "--box", (4,), "X0,Y0,X1,Y1") for b in args.box]
    if points and len(boxes) > 1:
        raise PromptError("points can be combined with at most one --box; give one box, or no points")
    return points, boxes


def _numbers(text: str, option: str, counts: tuple[int, ...], expected: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts:
        raise PromptError(f"{option} {text} is not {expected}; expected numbers in pixels")
    return values


def _predict(
    args: argparse.Namespace, image: NDArray[np.uint8], prompts: Prompts
) -> tuple[Masks, list[list[str]] | None, str, str]:
    """Return the masks, with --refine what became of each, and the backend and device that ran."""
    coords, labels, boxes = prompts.point_coords, prompts.point_labels, prompts.boxes
    ambiguous = coords is not None and len(coords) == 1 and boxes is None and prompts.mask_input is None
    outcomes = None
    with load_sam(args) as sam:
        embedding = sam.encode(image)
        found = sam.predict(embedding, coords, labels, boxes, prompts.mask_input, args.multimask or ambiguous)
        found = _best_first(found) if args.multimask else found.only_best()
        if args.refine:
            found = refined = sam.refine(image, found, coords, labels, boxes)
            outcomes = refined.outcomes
        backend, device = sam.backend, sam.device
    if args.min_region_area:
        found = found.cleaned(args.min_region_area)
    return found, outcomes, backend, device


def _best_first(found: Masks) -> Masks:
    """Sort the masks of each prompt by score, best first."""
    order = np.arange(len(found.scores))[:, None], np.argsort(-found.scores, axis=1)
    return Masks(found.masks[order], found.scores[order], found.low_res_logits[order])


def _rows(found: Masks, outcomes: list[list[str]] | None) -> list[dict[str, Any]]:
    """Return the entries of --json, one per mask."""
    rows = []
    for n, m in np.ndindex(found.scores.shape):
        row = mask_row(n, float(found.scores[n, m]), found.masks[n, m])
        rows.append(row if outcomes is None else {**row, "refinement": outcomes[n][m]})
    return rows


def _print_table(rows: list[dict[str, Any]], backend: str, device: str) -> None:
    print(f"{'prompt':>6} {'score':>6} {'area':>9}  bbox x, y, w, h  ({backend}, {device})")
    for row in rows:
        box = ", ".join(str(v) for v in row["bbox"])
        outcome = row.get("refinement", "refined")
        remark = "" if outcome == "refined" else f"  not refined: {outcome}"
        print(f"{row['prompt']:6} {row['score']:6.3f} {row['area']:9}  {box}{remark}")


def _mask_logits(
    path: Path,
    original: tuple[int, int],
    resized: tuple[int, int],
    padded: tuple[int, int],
    low_res: tuple[int, int],
) -> NDArray[np.float32]:
    """Read a mask prompt as low-resolution logits (1, h, w) float32; sizes are (height, width)."""
    if path.suffix == ".npy":
        return _read_logits(path, low_res)
    from ..imaging.io import read_image

    image = read_image(path)
    if image.shape[:2] != original:
        raise PromptError(
            f"--mask {path} is {image.shape[1]} x {image.shape[0]}, the image is {original[1]} x "
            f"{original[0]}; expected the same size"
        )
    logits = np.where(image.mean(2) > 127, 10.0, -10.0).astype(np.float32)
    return Upscaling(low_res, padded, resized, original).downscale(logits)[None]


def _read_logits(path: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    h, w = size
    try:
        array = np.load(path, allow_pickle=False)
        if not np.can_cast(array.dtype, np.float64):
            raise ValueError(f"its dtype is {array.dtype}")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        array = array[None] if array.ndim == 2 else array
        if array.shape != (1, h, w) or not np.isfinite(array).all():
            raise ValueError(f"its shape is {array.shape}, or it holds NaN or infinity")
    except Exception as error:  # damaged npy data raise nearly anything
        raise PromptError(
            f"--mask {path} cannot be used ({error}); expected .npy of finite logits (1, {h}, {w})"
        ) from error
    return array
