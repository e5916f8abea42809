"""The runtime against what it replaces: `segment_anything` with the same weights, in PyTorch.

    python -m tools.drop_in BUNDLE [--checkpoint FILE] [--repeats N] [--json]

BUNDLE has an ONNX FP32 variant made with `--compat segment-anything`, of a family whose decoder is SAM's;
FILE is the checkpoint that it was made from (not given: the embedded one). A and B are run in turn in one
process, and the ratio of their medians is what counts; imports and memory are measured in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

import sam_edge
from sam_edge import SamAutomaticMaskGenerator, SamPredictor
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.manifest import Manifest
from sam_edge.imaging.metrics import iou
from sam_edge.imaging.postprocess import Upscaling
from sam_edge.imaging.preprocess import preprocess, resized_size
from sam_edge.models.photos import PHOTOS, read_photo
from sam_edge.runtime.sam import Sam
from tools.published import published, published_around

SIZES = [(1080, 1920), (1200, 600), (333, 517), (64, 2048), (3000, 4000), (8000, 8000)]
FULL_HD = (1080, 1920)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tools.drop_in", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if open_bundle(args.bundle).manifest.resized_from is not None:
        parser.error(f"{args.bundle} has another input size than its model; export it without --imgsz")
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
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "threads": args.threads,
        "model": ours.manifest.model.name,
        **{name: version(name) for name in ("torch", "onnxruntime", "numpy", "pillow", "segment-anything")},
    }
    if args.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(f"{'what':44} {'published':>11} {'sam-edge':>11} {'ratio':>7}")
    for row in rows:
        values = f"{row['published']:8.1f} {row['unit']:2} {row['sam_edge']:8.1f} {row['unit']:2}"
        print(f"{row['what']:44} {values} {row['published'] / row['sam_edge']:7.2f}  {row['note']}")


def interleaved(repeats: int, **work: Callable[[], Any]) -> dict[str, float]:
    """Each run once to warm up, then in turn: medians in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for run in work.values():
        run()
    for _ in range(repeats):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def row(what: str, found: dict[str, float], note: str = "", unit: str = "ms") -> dict[str, Any]:
    """One line of the table."""
    return {"what": what, **found, "unit": unit, "note": note}


def photograph(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A packaged photograph at `size` (H, W)."""
    return np.array(Image.fromarray(read_photo(PHOTOS[0])).resize((size[1], size[0])))


def pre_and_postprocess(
    manifest: Manifest, theirs: Any, size: tuple[int, int], repeats: int
) -> dict[str, Any]:
    """Image to encoder input, and three low-resolution masks to the image's size."""
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
    found = interleaved(repeats, published=published_way, sam_edge=our_way)
    return row(f"pre- and postprocess {size[1]} x {size[0]}", found)


def click(ours: Sam, theirs: Any, threads: int, repeats: int) -> list[dict[str, Any]]:
    """One click on an encoded 1920 x 1080 image, to masks at its size."""
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
    found = interleaved(
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
    """Masks of everything in a 1920 x 1080 image from `side` x `side` points; the count and the masks must
    agree."""
    image = photograph(FULL_HD)
    options: dict[str, Any] = {
        "points_per_side": side,
        "pred_iou_thresh": ours.manifest.pred_iou_thresh,
        "stability_score_thresh": ours.manifest.stability_score_thresh,
    }
    mine = SamAutomaticMaskGenerator(ours, **options)
    torchs = published().SamAutomaticMaskGenerator(theirs, **options)
    answers: dict[str, Any] = {}
    found = interleaved(
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

    def run(module: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    found = interleaved(repeats, published=run("numpy"), sam_edge=run("sam_edge"))
    beyond = found["sam_edge"] - found["published"]
    return row("import numpy, import sam_edge", found, f"{beyond:.0f} ms beyond numpy")


_OURS = """
import sys, numpy, sam_edge
image = numpy.load(sys.argv[1])
with sam_edge.load(sys.argv[2], precision=sys.argv[3], threads=int(sys.argv[4])) as sam:
    sam.predict(sam.encode(image), [[900, 400]])
"""
_THEIRS = """
import sys, numpy, torch, pathlib
from sam_edge.benchmarks.published import published, published_around
torch.set_num_threads(int(sys.argv[4]))
image = numpy.load(sys.argv[1])
predictor = published().SamPredictor(published_around(pathlib.Path(sys.argv[2]) if sys.argv[2] else None))
predictor.set_image(image)
predictor.predict(numpy.array([[900, 400]]), numpy.array([1]))
"""
# Linux: the peak of this program alone; ru_maxrss begins with the peak of the process that started it.
_PEAK = """
try:
    status = open("/proc/self/status").read()
    print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
except FileNotFoundError:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def memory(bundle: Path, checkpoint: Path | None, threads: int) -> list[dict[str, Any]]:
    """Peak memory of fresh processes that load a model and segment one 1920 x 1080 image by a click."""

    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.npy"
        np.save(image, photograph(FULL_HD))

        def peak(code: str, *arguments: Any) -> float:
            command = [sys.executable, "-c", code + _PEAK, str(image), *map(str, arguments), str(threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            return int(done.stdout) / 1e6

        pytorch = peak(_THEIRS, checkpoint or "", "")
        there = [v.precision for v in open_bundle(bundle).manifest.variants]
        return [
            row(
                f"peak memory, load and one click, {precision}",
                {"published": pytorch, "sam_edge": peak(_OURS, bundle, precision)},
                unit="MB",
            )
            for precision in dict.fromkeys(there)
        ]


if __name__ == "__main__":
    main()
