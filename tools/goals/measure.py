"""Measures the figures that goals need and reports of `peers` lack, as a report of the same shape.

That is the decoder and the first mask beside the published graphs (see `tools.published.graphs`),
everything-mode beside `segment_anything`, and the encoder beside the machine's matrix products.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import torch

import sam_edge
from sam_edge.benchmarks.measure.interleave import sample_in_rounds
from sam_edge.benchmarks.measure.machine import describe
from sam_edge.benchmarks.measure.process import run_task
from sam_edge.benchmarks.measure.rounds import matmul_gflops, run_child
from sam_edge.benchmarks.measure.worker import milliseconds
from sam_edge.bundle.bundle import Bundle, open_bundle
from sam_edge.bundle.variant import Variant
from sam_edge.errors import BackendError
from sam_edge.types import Precision, Prompts
from tools.drop_in import everything
from tools.goals.goals import PEAK, PUBLISHED, PYTORCH, Row
from tools.published import published_around
from tools.published.graphs import write_published
from tools.shared.images import FULL_HD, photograph

# Of one image, a multiply-accumulate counted as two; padding is not counted.
ENCODER_GFLOP = {"vit_b": 935.0, "mobile_sam": 74.9}
# Clicks that a decoder takes in each round.
CLICKS = 10
_BACKENDS = {"onnx": "onnxruntime", "openvino": "openvino"}


@dataclass
class Measurement:
    """A bundle and the rows measured so far.

    Attributes:
        bundle: whose decoder is SAM's.
        folder: holds `image.npy`, the published graphs and the cache directory.
        threads: of every row.
        rounds: number of interleaved rounds.
        seconds: how long an encoder, or matrix products, run in each round.
        variants: those in ONNX and OpenVINO made for no particular machine.
        rows: by id, the samples of each round by the figure's name.
    """

    bundle: Bundle
    folder: Path
    threads: int
    rounds: int
    seconds: float
    variants: list[Variant] = field(init=False)
    rows: dict[str, Row] = field(init=False)

    def __post_init__(self) -> None:
        every = self.bundle.manifest.variants
        self.variants = [one for one in every if one.format in _BACKENDS and one.target is None]
        self.rows = {row_id(one): {"versions": _versions(one)} for one in self.variants}
        self.rows |= {
            PYTORCH: {"versions": {"torch": version("torch")}},
            PUBLISHED: {"versions": {}},
            PEAK: {},
        }

    @property
    def exact(self) -> list[Variant]:
        """The variants in FP32."""
        return [one for one in self.variants if one.precision == "fp32"]

    def load(self, variant: Variant) -> sam_edge.Sam:
        """Load a variant in this process."""
        backend = _BACKENDS[variant.format]
        precision = cast(Precision, variant.precision)
        return sam_edge.load(self.bundle.path, backend, "cpu", precision, self.threads)

    def sample(self, figure: str, work: Mapping[str, Callable[[], list[float]]], warmup: int = 0) -> None:
        """Run the work of each row in interleaved rounds, and keep its samples as `figure`."""
        for name, rounds in sample_in_rounds(work, self.rounds, warmup).items():
            self.rows[name][figure] = rounds


def row_id(variant: Variant) -> str:
    """The id of a variant's row."""
    return f"sam-edge {variant.id}"


def _versions(variant: Variant) -> dict[str, str]:
    backend = _BACKENDS[variant.format]
    return {"sam-edge": sam_edge.__version__, backend: version(backend), "numpy": version("numpy")}


def measured(
    path: Path,
    checkpoint: Path,
    *,
    threads: int = 2,
    rounds: int = 5,
    seconds: float = 2.0,
    points_per_side: int = 32,
    report_step: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure a bundle and return the report.

    Args:
        path: a bundle of a model whose decoder is SAM's.
        checkpoint: what the bundle was made from.
        threads: of every row.
        rounds: number of interleaved rounds.
        seconds: how long an encoder, or matrix products, run in each round.
        points_per_side: of everything-mode.
        report_step: called with the name of what is measured next.

    Raises:
        BundleError, CheckpointError, BackendError: it cannot be measured; the message says why.
    """
    bundle = open_bundle(path)
    name = bundle.manifest.model.name
    torch.set_num_threads(threads)
    published = published_around(checkpoint)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        run = Measurement(bundle, Path(folder), threads, rounds, seconds)
        np.save(run.folder / "image.npy", photograph(FULL_HD))
        report_step("published graphs")
        write_published(published, run.folder)
        report_step("decoders")
        decoders(run)
        report_step("first masks")
        first_masks(run)
        if name in ENCODER_GFLOP:
            report_step("encoders")
            encoders(run, ENCODER_GFLOP[name])
        for variant in run.exact:
            report_step(f"everything-mode, {variant.id}")
            with run.load(variant) as ours:
                found = everything(ours, published, 1, points_per_side)
            run.rows[PYTORCH].setdefault("everything_ms", []).append([found["published"]])
            run.rows[row_id(variant)]["everything_ms"] = [[found["sam_edge"]]]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": describe(threads)["cpu"]},
        "model": {"name": name},
        "settings": {"threads": threads, "repeats": rounds, "points_per_side": points_per_side},
        "rows": run.rows,
    }


def decoders(run: Measurement) -> None:
    """Measure `decode_ms`: one click on an embedding, to low-resolution masks, in this process.

    Raises:
        BackendError: a decoder's masks are not those of the published one.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = run.threads
    path = run.folder / "decoder.onnx"
    plain = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    ours = {row_id(one): run.load(one) for one in run.exact}
    image, click = np.load(run.folder / "image.npy"), np.array([[900.0, 400.0]])
    embedding = next(iter(ours.values())).encode(image)
    scale = max(run.bundle.manifest.coordinate_space.size) / max(image.shape)
    inputs = {
        **embedding.arrays,
        "point_coords": np.array([[*(click * scale), (0, 0)]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, *run.bundle.manifest.mask_size), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    prompt = Prompts(click, np.array([1]))
    expected = plain.run(None, inputs)[0][:, 1:]
    calls: dict[str, Callable[[], object]] = {PUBLISHED: partial(plain.run, None, inputs)}
    for name, sam in ours.items():
        found, _ = sam._decode(embedding, prompt)
        if not np.abs(found - expected).max() <= 1e-2 * np.abs(expected).max():
            raise BackendError(f"{name} does not make the published decoder's masks; export the bundle again")
        calls[name] = partial(sam._decode, embedding, prompt)

    def clicks(call: Callable[[], object]) -> list[float]:
        call()  # threads of the session before may still be busy
        return [float(np.median([milliseconds(call) for _ in range(CLICKS)]))]

    run.sample("decode_ms", {name: partial(clicks, call) for name, call in calls.items()})
    for sam in ours.values():
        sam.close()


def first_masks(run: Measurement) -> None:
    """Measure `first_mask_ms`: load, encode an image and click on it, each in a fresh process.

    sam-edge has its cache directory, which the round that warms up fills.
    """
    common = {"work": "first_mask", "image": str(run.folder / "image.npy"), "threads": run.threads}
    tasks: dict[str, dict[str, Any]] = {
        PUBLISHED: {
            "subject": "graphs",
            "folder": str(run.folder),
            "size": list(run.bundle.manifest.coordinate_space.size),
        }
    }
    for one in run.variants:
        tasks[row_id(one)] = {
            "subject": "sam_edge",
            "bundle": str(run.bundle.path),
            "backend": _BACKENDS[one.format],
            "precision": one.precision,
            "cache_dir": str(run.folder / "cache"),
        }

    def first_mask(task: dict[str, Any]) -> list[float]:
        return [run_task("tools.child", common | task)]

    work = {name: partial(first_mask, task) for name, task in tasks.items()}
    run.sample("first_mask_ms", work, warmup=1)


def encoders(run: Measurement, gflop: float) -> None:
    """Measure `gflops` of encoders without preprocessing, and of NumPy's FP32 matrix products."""
    common = {"threads": run.threads, "seconds": run.seconds, "device": "cpu", "work": "latency"}
    image = str(run.folder / "image.npy")

    def rates(variant: Variant) -> list[float]:
        row = {"variant": variant.id, "backend": _BACKENDS[variant.format]}
        answer = run_child(common | row | {"bundle": str(run.bundle.path), "image": image})
        return [1e3 * gflop / ms for ms in answer["samples"]["encoder_ms"]]

    work: dict[str, Callable[[], list[float]]] = {PEAK: partial(matmul_gflops, run.threads, run.seconds)}
    run.sample("gflops", work | {row_id(one): partial(rates, one) for one in run.exact})
