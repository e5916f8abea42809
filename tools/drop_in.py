"""Measures the runtime against what it replaces: `segment_anything` with the same weights, in PyTorch.

    python -m tools.drop_in BUNDLE [--checkpoint FILE] [--repeats N] [--json]

BUNDLE has an ONNX FP32 variant that was exported with `--compat segment-anything`, of a family whose decoder
is SAM's; FILE is the checkpoint that it was made from (default: the embedded one). Both take turns in one
process, and the ratio of their medians is what counts; imports and memory are measured in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import sam_edge
from sam_edge import SamAutomaticMaskGenerator, SamPredictor
from sam_edge.benchmarks.measure import machine
from sam_edge.benchmarks.measure.interleave import sample_in_rounds
from sam_edge.benchmarks.measure.process import run_task, time_command
from sam_edge.benchmarks.measure.worker import milliseconds
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.manifest import Manifest
from sam_edge.imaging.metrics import iou
from sam_edge.imaging.postprocess import Upscaling
from sam_edge.imaging.preprocess import preprocess, resized_size
from sam_edge.runtime.sam import Sam
from tools.published import published, published_around
from tools.shared.images import FULL_HD, photograph

SIZES = [(1080, 1920), (1200, 600), (333, 517), (64, 2048), (3000, 4000), (8000, 8000)]


def main() -> None:
    """Read the arguments, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tools.drop_in", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if open_bundle(args.bundle).manifest.resized_from is not None:
        parser.error(f"the input size of {args.bundle} is not its model's own; export it without --imgsz")
    torch.set_num_threads(args.threads)
    theirs = published_around(args.checkpoint)
    rows = []
    with (
        sam_edge.load(args.bundle, "onnxruntime", "cpu", "fp32", args.threads) as ours,
        torch.inference_mode(),
    ):
        rows += [pre_and_postprocess(ours.manifest, theirs, size, args.repeats) for size in SIZES]
        rows += click(ours, theirs, args.threads, 4 * args.repeats)
        rows.append(everything(ours, theirs, max(1, args.repeats // 2)))
    rows.append(imports(4 * args.repeats))
    rows += memory(args.bundle, args.checkpoint, args.threads)
    facts = {
        "cpu": machine.describe(args.threads)["cpu"],
        "threads": args.threads,
        "model": ours.manifest.model.name,
        **{name: version(name) for name in ("torch", "onnxruntime", "numpy", "pillow", "segment-anything")},
    }
    if args.json:
        print(json.dumps({"machine": facts, "rows": rows}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"{'what':44} {'published':>11} {'sam-edge':>11} {'ratio':>7}")
    for row in rows:
        values = f"{row['published']:8.1f} {row['unit']:2} {row['sam_edge']:8.1f} {row['unit']:2}"
        print(f"{row['what']:44} {values} {row['published'] / row['sam_edge']:7.2f}  {row['note']}")


def interleave(repeats: int, **calls: Callable[[], object]) -> dict[str, float]:
    """Median milliseconds of each call, in interleaved rounds after one that warms up."""
    work = {name: partial(milliseconds, call) for name, call in calls.items()}
    return {name: float(np.median(times)) for name, times in sample_in_rounds(work, repeats).items()}


def row(what: str, found: dict[str, float], note: str = "", unit: str = "ms") -> dict[str, Any]:
    """Make one line of the table."""
    return {"what": what, **found, "unit": unit, "note": note}


def pre_and_postprocess(
    manifest: Manifest, theirs: Any, size: tuple[int, int], repeats: int
) -> dict[str, Any]:
    """Measure an image to encoder input, and three low-resolution masks to the image's size."""
    image = photograph(size)
    transform = published("utils.transforms").ResizeLongestSide(theirs.image_encoder.img_size)
    low_res = np.random.default_rng(0).normal(0, 5, (1, 3, *manifest.mask_size)).astype(np.float32)
    given = torch.from_numpy(low_res)

    def published_way() -> Any:
        resized = torch.as_tensor(transform.apply_image(image)).permute(2, 0, 1).contiguous()[None]
        theirs.preprocess(resized)
        return theirs.postprocess_masks(given, tuple(resized.shape[2:]), size) > theirs.mask_threshold

    def our_way() -> Any:
        preprocess(image, manifest.input)
        inside = resized_size(size, manifest.coordinate_space)
        upscaling = Upscaling(manifest.mask_size, manifest.coordinate_space.size, inside, size)
        return upscaling.masks(low_res, manifest.mask_threshold)

    assert np.mean(our_way() != published_way().numpy()) < 1e-4
    found = interleave(repeats, published=published_way, sam_edge=our_way)
    return row(f"pre- and postprocess {size[1]} x {size[0]}", found)


def click(ours: Sam, theirs: Any, threads: int, repeats: int) -> list[dict[str, Any]]:
    """Measure one click on an encoded 1920 x 1080 image, to masks at its size."""
    image = photograph(FULL_HD)
    prompt: dict[str, Any] = {"point_coords": np.array([[900.0, 400.0]]), "point_labels": np.array([1])}
    mine, torchs = SamPredictor(ours), published().SamPredictor(theirs)
    mine.set_image(image)
    torchs.set_image(image)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    path = ours.bundle.path / "onnx-fp32" / "decoder-segment-anything.onnx"
    contract = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    embedding = mine.get_image_embedding()
    side = ours.manifest.mask_size

    def published_contract() -> Any:
        coords = np.concatenate([prompt["point_coords"], [[0.0, 0.0]]])[None]
        coords = torchs.transform.apply_coords(coords, image.shape[:2]).astype(np.float32)
        given = {
            "image_embeddings": embedding,
            "point_coords": coords,
            "point_labels": np.array([[1, -1]], np.float32),
            "mask_input": np.zeros((1, 1, *side), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array(image.shape[:2], np.float32),
        }
        return contract.run(None, given)[0] > ours.manifest.mask_threshold

    expected = published_contract()[0, 1:]
    assert min(map(iou, mine.predict(**prompt)[0], expected)) > 0.999
    found = interleave(
        repeats,
        contract=published_contract,
        pytorch=lambda: torchs.predict(**prompt),
        sam_edge=lambda: mine.predict(**prompt),
    )
    return [
        row(
            f"one click, 1920 x 1080, against {name}",
            {"published": found[key], "sam_edge": found["sam_edge"]},
        )
        for key, name in (("contract", "its ONNX"), ("pytorch", "PyTorch"))
    ]


def everything(ours: Sam, theirs: Any, repeats: int, side: int = 32) -> dict[str, Any]:
    """Measure masks of everything in a 1920 x 1080 image, from `side` x `side` points.

    The note has how many masks each found, and how many of the published ones sam-edge found too.
    """
    image = photograph(FULL_HD)
    options: dict[str, Any] = {
        "points_per_side": side,
        "pred_iou_thresh": ours.manifest.pred_iou_thresh,
        "stability_score_thresh": ours.manifest.stability_score_thresh,
    }
    mine = SamAutomaticMaskGenerator(ours, **options)
    torchs = published().SamAutomaticMaskGenerator(theirs, **options)
    answers: dict[str, Any] = {}
    found = interleave(
        repeats,
        published=lambda: answers.update(published=torchs.generate(image)),
        sam_edge=lambda: answers.update(sam_edge=mine.generate(image)),
    )
    counts = {name: len(records) for name, records in answers.items()}
    masks = [record["segmentation"] for record in answers["sam_edge"]]
    best = [
        max((iou(mask, record["segmentation"]) for mask in masks), default=0)
        for record in answers["published"]
    ]
    share = np.mean(np.array(best) >= 0.99) if best else 1.0
    note = f"{counts['published']} and {counts['sam_edge']} masks, {share:.1%} matched"
    return row(f"everything, {side} x {side} points, 1920 x 1080", found, note)


def imports(repeats: int) -> dict[str, Any]:
    """`import numpy` and `import sam_edge` in fresh processes."""
    names = {"published": "numpy", "sam_edge": "sam_edge"}
    work = {key: partial(time_command, [sys.executable, "-c", f"import {m}"]) for key, m in names.items()}
    found = {key: float(np.median(times)) for key, times in sample_in_rounds(work, repeats).items()}
    return row(
        "import numpy, import sam_edge", found, f"{found['sam_edge'] - found['published']:.0f} ms more"
    )


def memory(bundle: Path, checkpoint: Path | None, threads: int) -> list[dict[str, Any]]:
    """Peak memory of fresh processes that load a model and click on one 1920 x 1080 image."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.npy"
        np.save(image, photograph(FULL_HD))
        common = {"work": "peak_memory", "image": str(image), "threads": threads}
        given = {"subject": "pytorch", "checkpoint": None if checkpoint is None else str(checkpoint)}
        pytorch = run_task("tools.child", {**common, **given})
        rows = []
        for precision in dict.fromkeys(v.precision for v in open_bundle(bundle).manifest.variants):
            given = {"subject": "sam_edge", "bundle": str(bundle), "backend": "auto", "precision": precision}
            found = {"published": pytorch, "sam_edge": run_task("tools.child", {**common, **given})}
            rows.append(row(f"peak memory, load and one click, {precision}", found, unit="MB"))
    return rows


if __name__ == "__main__":
    main()
