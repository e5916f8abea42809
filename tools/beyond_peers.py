"""What the targets need and no report of `peers` holds, measured in this environment, as a report of the same
form: the decoder and the first mask beside the published graphs, everything-mode, the encoder beside the
machine's matrix products.

The published graphs are the modules as `torch.onnx.export` writes them; the decoder's is `SamOnnxModel`, but
for its upscaling to the image's size.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import sam_edge
from sam_edge.backends.isolated import python_with
from sam_edge.benchmarks.measure import machine
from sam_edge.benchmarks.measure.rounds import MATMUL_SIDE, run_child
from sam_edge.bundle.bundle import Bundle, open_bundle
from sam_edge.bundle.variant import Variant
from sam_edge.errors import BackendError
from sam_edge.types import Precision, Prompts
from tools.drop_in import FULL_HD, everything, interleaved, photograph
from tools.published import published, published_around

Row = dict[str, Any]
PYTORCH, PUBLISHED, PEAK = "segment_anything", "published ONNX", "matrix products"
# Of the encoder, two a multiply-accumulate, on the image's own tokens: nothing is projected of padding.
ENCODER_GFLOP = {"vit_b": 935.0, "mobile_sam": 74.9}
_BACKENDS = {"onnx": "onnxruntime", "openvino": "openvino"}
_CLICKS = 10


class LowResolutionMasks(nn.Module):
    """`SamOnnxModel` without its upscaling."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.whole = published("utils.onnx").SamOnnxModel(sam, return_single_mask=False)
        self.whole.mask_postprocessing = lambda masks, size: masks

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Its inputs but `orig_im_size` -> low_res_masks (1, 4, h, w), iou_predictions (1, 4)."""
        _, scores, masks = self.whole(*given, torch.ones(2))
        return masks, scores


def write_published(sam: Any, folder: Path) -> None:
    """`encoder.onnx` and `decoder.onnx` of the published `Sam`."""
    side, (height, width) = sam.image_encoder.img_size, sam.prompt_encoder.image_embedding_size
    embedding = torch.zeros(1, sam.prompt_encoder.embed_dim, height, width)
    mask = torch.zeros(1, 1, 4 * height, 4 * width)
    prompt = torch.zeros(1, 5, 2), torch.ones(1, 5), mask, torch.zeros(1)
    names = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input"]
    points = {1: "num_points"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            sam.image_encoder,
            (torch.zeros(1, 3, side, side),),
            str(folder / "encoder.onnx"),
            input_names=["images"],
            output_names=["image_embeddings"],
            opset_version=17,
            dynamo=False,
        )
        torch.onnx.export(
            LowResolutionMasks(sam),
            (embedding, *prompt),
            str(folder / "decoder.onnx"),
            input_names=names,
            output_names=["low_res_masks", "iou_predictions"],
            dynamic_axes={"point_coords": points, "point_labels": points},
            opset_version=17,
            dynamo=False,
        )


def measured(
    path: Path,
    checkpoint: Path,
    threads: int = 2,
    rounds: int = 5,
    seconds: float = 2.0,
    points_per_side: int = 32,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """A report on a bundle of a model whose decoder is SAM's.

    Args:
        path: the bundle.
        checkpoint: what it was made from.
        threads: of everything.
        rounds: in which all take turns.
        seconds: for each turn of an encoder, and of matrix products.
        points_per_side: of everything-mode.
        say: told what is measured next.

    Raises:
        BundleError, CheckpointError, BackendError: it cannot be measured; the message says why.
    """
    bundle = open_bundle(path)
    variants = [one for one in bundle.manifest.variants if one.format in _BACKENDS and one.target is None]
    name, exact = bundle.manifest.model.name, [one for one in variants if one.precision == "fp32"]
    rows: dict[str, Row] = {f"sam-edge {one.id}": {"versions": _versions(one)} for one in variants}
    rows |= {PYTORCH: {"versions": {"torch": version("torch")}}, PUBLISHED: {"versions": {}}, PEAK: {}}
    torch.set_num_threads(threads)
    theirs = published_around(checkpoint)
    with tempfile.TemporaryDirectory() as place, torch.inference_mode():
        folder = Path(place)
        np.save(folder / "image.npy", photograph(FULL_HD))
        say("published graphs")
        write_published(theirs, folder)
        say("decoders")
        decoders(bundle, exact, folder, threads, rounds, rows)
        say("first masks")
        first_masks(bundle, variants, folder, threads, rounds, rows)
        if name in ENCODER_GFLOP:
            say("encoders")
            encoders(bundle, exact, folder, threads, rounds, seconds, rows, ENCODER_GFLOP[name])
        for variant in exact:
            say(f"everything-mode, {variant.id}")
            with _load(bundle, variant, threads) as ours:
                found = everything(ours, theirs, 1, points_per_side)
            rows[PYTORCH].setdefault("everything_ms", []).append([found["published"]])
            rows[f"sam-edge {variant.id}"]["everything_ms"] = [[found["sam_edge"]]]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": machine.describe(threads)["cpu"]},
        "model": {"name": name},
        "settings": {"threads": threads, "repeats": rounds, "points_per_side": points_per_side},
        "rows": rows,
    }


def _versions(variant: Variant) -> dict[str, str]:
    backend = _BACKENDS[variant.format]
    return {"sam-edge": sam_edge.__version__, backend: version(backend), "numpy": version("numpy")}


def _load(bundle: Bundle, variant: Variant, threads: int) -> sam_edge.Sam:
    backend = _BACKENDS[variant.format]
    return sam_edge.load(bundle.path, backend, "cpu", cast(Precision, variant.precision), threads)


def decoders(
    bundle: Bundle,
    variants: list[Variant],
    folder: Path,
    threads: int,
    rounds: int,
    rows: dict[str, Row],
) -> None:
    """`decode_ms`: one click on an embedding, to low-resolution masks; in turn, in this process."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    plain = onnxruntime.InferenceSession(folder / "decoder.onnx", options, providers=["CPUExecutionProvider"])
    ours = {f"sam-edge {one.id}": _load(bundle, one, threads) for one in variants}
    image, click = np.load(folder / "image.npy"), np.array([[900.0, 400.0]])
    embedding = next(iter(ours.values())).encode(image)
    scale = max(bundle.manifest.coordinate_space.size) / max(image.shape)
    given = {
        **embedding.arrays,
        "point_coords": np.array([[*(click * scale), (0, 0)]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, *bundle.manifest.mask_size), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    prompt = Prompts(click, np.array([1]))
    expected = plain.run(None, given)[0][:, 1:]
    work: dict[str, Callable[[], Any]] = {PUBLISHED: lambda: plain.run(None, given)}
    for id, sam in ours.items():
        found, _ = sam.decode(embedding, prompt)
        if not np.abs(found - expected).max() <= 1e-2 * np.abs(expected).max():
            raise BackendError(f"{id} draws other masks than the published decoder; export the bundle again")
        work[id] = lambda sam=sam: sam.decode(embedding, prompt)  # type: ignore[misc]
    for _ in range(rounds):
        for id, run in work.items():
            # One run ahead of those that count: threads of the session before may still be waiting for work.
            found_ms = interleaved(_CLICKS, this=run)["this"]
            rows[id].setdefault("decode_ms", []).append([found_ms])
    for sam in ours.values():
        sam.close()


def first_masks(
    bundle: Bundle,
    variants: list[Variant],
    folder: Path,
    threads: int,
    rounds: int,
    rows: dict[str, Row],
) -> None:
    """`first_mask_ms`: load, encode an image and click on it, in a fresh process that has its imports.

    sam-edge has what it keeps in a cache; of the published graphs, both sessions are made.
    """
    tasks: dict[str, dict[str, Any]] = {PUBLISHED: {"size": bundle.manifest.coordinate_space.size}}
    for one in variants:
        task = {
            "bundle": str(bundle.path),
            "backend": _BACKENDS[one.format],
            "precision": one.precision,
        }
        tasks[f"sam-edge {one.id}"] = task
    # The first round fills the cache.
    for number in range(rounds + 1):
        for id, task in tasks.items():
            done = subprocess.run(
                python_with("tools.first_mask"),
                input=json.dumps({**task, "folder": str(folder), "threads": threads}),
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise BackendError(f"{id} made no first mask: {done.stderr.strip()[-300:]}")
            if number:
                rows[id].setdefault("first_mask_ms", []).append([float(done.stdout)])
    shutil.rmtree(folder / "cache")


def encoders(
    bundle: Bundle,
    variants: list[Variant],
    folder: Path,
    threads: int,
    rounds: int,
    seconds: float,
    rows: dict[str, Row],
    gflop: float,
) -> None:
    """`gflops` of encoders without preprocessing, and of NumPy's matrix products in FP32, in turn."""
    common = {"threads": threads, "seconds": seconds, "image": str(folder / "image.npy"), "device": "cpu"}
    for _ in range(rounds):
        found = run_child({"work": "matmul", "side": MATMUL_SIDE, **common})
        rows[PEAK].setdefault("gflops", []).append(found["gflops"])
        for one in variants:
            row = {"bundle": str(bundle.path), "variant": one.id, "backend": _BACKENDS[one.format]}
            times = run_child({"work": "latency", **row, **common})["samples"]["encoder_ms"]
            rates = [1e3 * gflop / milliseconds for milliseconds in times]
            rows[f"sam-edge {one.id}"].setdefault("gflops", []).append(rates)
