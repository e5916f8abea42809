"""`sam-edge info`: describe a bundle."""

from __future__ import annotations

import argparse
import json

from ..bundle.bundle import open_bundle
from ..bundle.manifest import cost_words
from .options import add_bundle


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_bundle(parser)


def run(args: argparse.Namespace) -> int:
    """Print a summary of the manifest, or with --json all of it."""
    data = open_bundle(args.bundle).manifest.data
    if args.json:
        print(json.dumps(data, indent=2))
        return 0
    model, rules = data["model"], data["input"]
    print(f"{model['name']} ({model['family']}), {model['parameters'] / 1e6:.2f} M parameters")
    print(f"checkpoint {model['checkpoint']['file']} sha256 {model['checkpoint']['sha256']}")
    resized = data.get("resized_from")
    published = "" if resized is None else f" (published: {resized['size'][1]} x {resized['size'][0]})"
    print(
        f"input {rules['size'][1]} x {rules['size'][0]}{published}, {rules['resize']}, {rules['color_order']}"
    )
    if resized is not None:
        print(f"masks {cost_words(resized)}")
    width = max(14, *(len(variant["id"]) for variant in data["variants"]))
    for variant in data["variants"]:
        size = sum(file["bytes"] for file in variant["files"]) / 1e6
        parity = variant["parity"]
        print(
            f"{variant['id']:{width}} {size:8.1f} MB  mean IoU {parity['mean_iou']:.5f} "
            f"(min {parity['min_iou']:.5f}, boundary {parity['boundary_iou']:.5f}, "
            f"{parity['num_prompts']} prompts)"
        )
    for clip in [data["clip"]] if "clip" in data else []:
        print(
            f"CLIP {clip['checkpoint']['file']}, {clip['parameters'] / 1e6:.2f} M parameters, "
            f"{clip['image_size']} pixels, {clip['context_length']} tokens"
        )
        for variant in clip["variants"]:
            size = sum(file["bytes"] for file in variant["files"]) / 1e6
            min_cosine = min(variant["parity"]["min_text_cosine"], variant["parity"]["min_image_cosine"])
            print(f"{variant['id']:14} {size:8.1f} MB  minimum cosine similarity {min_cosine:.5f}")
    return 0
