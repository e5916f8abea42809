"""`sam-edge predict --text`: the masks of an image that match a text best."""

from __future__ import annotations

import argparse
import json

from ..bundle.bundle import open_bundle
from ..errors import PromptError
from .options import load_sam
from .outputs import check_outputs, check_png, mask_paths, mask_row


def run_text(args: argparse.Namespace) -> int:
    """Find the masks, write the files, print a table or JSON."""
    from ..imaging.io import read_image, write_mask, write_overlay

    if args.point or args.box or args.mask is not None or args.multimask:
        raise PromptError(
            "--text cannot be combined with points, boxes, a mask or --multimask; give one or the other"
        )
    if args.refine or args.min_region_area:
        raise PromptError("--refine and --min-region-area do not apply to --text; leave them out")
    count = 1 if args.top_k is None else args.top_k
    if count < 1:
        raise PromptError(f"--top-k is {count}; expected 1 or more")
    check_png(args.out, args.overlay)
    outputs = mask_paths(args.out, count)
    check_outputs(outputs, args.overlay, [args.image])
    # Fails before the encoder runs if the bundle has no CLIP.
    open_bundle(args.bundle).clip()
    image = read_image(args.image)
    with load_sam(args) as sam:
        found = sam.predict_text(image, args.text, count, args.threshold)
        backend, device = sam.backend, sam.device
    rows = [mask_row(0, score, mask) for mask, score in zip(found.masks, found.scores, strict=True)]
    for path, mask in zip(outputs, found.masks, strict=False):
        write_mask(path, mask)
    if args.overlay is not None:
        write_overlay(args.overlay, image, list(found.masks))
    if args.json:
        result = {
            "image": str(args.image),
            "backend": backend,
            "device": device,
            "text": args.text,
            "masks": rows,
        }
        print(json.dumps(result))
        return 0
    print(f"{'score':>6} {'area':>9}  bbox x, y, w, h  ({args.text}; {backend}, {device})")
    for row in rows:
        print(f"{row['score']:6.3f} {row['area']:9}  {', '.join(map(str, row['bbox']))}")
    return 0
