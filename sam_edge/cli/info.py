"""`sam-edge info`: describe a bundle."""

from __future__ import annotations

import argparse
import json

from ..bundle.bundle import open_bundle
from ..bundle.manifest import ClipEntry, describe_resize_accuracy
from .options import add_bundle


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_bundle(parser)


def run(args: argparse.Namespace) -> int:
    """Print a summary of the manifest, or with --json all of it."""
    manifest = open_bundle(args.bundle).manifest
    if args.json:
        print(json.dumps(manifest.data, indent=2))
        return 0
    model, rules, resized = manifest.model, manifest.input, manifest.resized_from
    print(f"{model.name} ({model.family}), {model.parameters / 1e6:.2f} M parameters")
    print(f"checkpoint {model.checkpoint.file} sha256 {model.checkpoint.sha256}")
    published = "" if resized is None else f" (published: {resized.size[1]} x {resized.size[0]})"
    print(f"input {rules.size[1]} x {rules.size[0]}{published}, {rules.resize}, RGB")
    if resized is not None:
        print(f"masks {describe_resize_accuracy(resized)}")
    width = max(14, *(len(variant.id) for variant in manifest.variants))
    for variant in manifest.variants:
        line, parity = f"{variant.id:{width}} {variant.bytes / 1e6:8.1f} MB", variant.parity
        if parity is not None:
            line += (
                f"  mean IoU {parity.mean_iou:.5f} (min {parity.min_iou:.5f}, "
                f"boundary {parity.boundary_iou:.5f}, {parity.num_prompts} prompts)"
            )
        print(line)
    if manifest.clip is not None:
        _print_clip(manifest.clip)
    return 0


def _print_clip(clip: ClipEntry) -> None:
    print(
        f"CLIP {clip.checkpoint.file}, {clip.parameters / 1e6:.2f} M parameters, "
        f"{clip.rules.image_size} pixels, {clip.rules.context_length} tokens"
    )
    for variant in clip.variants:
        line, parity = f"{variant.id:14} {variant.bytes / 1e6:8.1f} MB", variant.parity
        if parity is not None:
            lowest = min(parity.min_text_cosine, parity.min_image_cosine)
            line += f"  minimum cosine similarity {lowest:.5f}"
        print(line)
