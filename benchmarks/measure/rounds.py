"""Runs the rows of a benchmark in rounds, each in a fresh process, and collects the results.

In each round every row has its turn, in random order; before them, NumPy's FP32 matrix products show how fast
the machine is just then.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_edge.backends.onnxruntime.providers import NPU_SIMULATED
from sam_edge.errors import SamEdgeError

from .interleave import shuffled_rounds
from .process import TIMEOUT_S, run_task
from .rows import Row
from .statistics import drift, summarize

PHASES = (
    "load_ms",
    "compile_ms",
    "first_ms",
    "preprocess_ms",
    "encoder_ms",
    "decoder_ms",
    "decoder_64_ms",
    "postprocess_ms",
    "end_to_end_ms",
)
SIMULATED = (NPU_SIMULATED, "mil-reference")
MATMUL_SIDE = 1536
# The report's names -> those of `ParityReport`.
_PARITY = {
    "prompts": "num_prompts",
    "mean_iou": "mean_iou",
    "p5_iou": "p5_iou",
    "min_iou": "min_iou",
    "boundary_iou": "boundary_iou",
    "max_iou_prediction_difference": "max_score_difference",
    "embedding_relative_error": "embedding_relative_error",
    "gate": "gate",
    "passed": "passed",
}
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# Where set, NumPy multiplies with the instructions of an older processor, which says nothing of this one.
_OLDER_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

# Takes a task and returns its answer: `run_child`, or a function of a test.
Child = Callable[[dict[str, Any]], dict[str, Any]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to measure, and how.

    Attributes:
        bundle: its directory.
        rows: what to measure.
        golden: the file with the reference's masks, for parity.
        image: what latency is measured on, (H, W, 3) uint8 RGB.
        seconds: how long each row runs after its first mask, over all rounds.
        rounds: how many.
        threads: within one operator.
        seed: of the order of rows in each round.
        reference: the PyTorch checkpoint, for rows of PyTorch.
        annotations, images: COCO JSON of ground-truth masks, and the folder of its images.
        drawings: the directory for drawings of the worst masks; None for no drawings.
    """

    bundle: Path
    rows: Sequence[Row]
    golden: Path
    image: NDArray[np.uint8]
    seconds: float
    rounds: int
    threads: int
    seed: int = 0
    reference: Path | None = None
    annotations: Path | None = None
    images: Path | None = None
    drawings: Path | None = None


@dataclass
class RowResult:
    """What is known of a row so far."""

    row: Row
    device: str | None = None
    failed: str = ""
    samples: dict[str, list[list[float]]] = field(default_factory=dict)
    peaks: list[float] = field(default_factory=list)
    device_memory: list[float] = field(default_factory=list)
    energy: list[float] = field(default_factory=list)
    placement: dict[str, Any] | None = None
    compute_placement: dict[str, Any] | None = None
    parity: dict[str, Any] | None = None
    worst: list[dict[str, Any]] = field(default_factory=list)
    ground_truth: dict[str, Any] | None = None

    def add_latency(self, answer: dict[str, Any]) -> None:
        """Add what the latency task of one round answered."""
        self.device = answer["device"]
        self.placement, self.compute_placement = answer["placement"], answer["compute_placement"]
        for name, values in answer["samples"].items():
            self.samples.setdefault(name, []).append(values)
        for values, key in (
            (self.peaks, "peak_rss_mb"),
            (self.device_memory, "device_memory_mb"),
            (self.energy, "energy_j"),
        ):
            if answer[key] is not None:
                values.append(answer[key])

    @property
    def status(self) -> str:
        """ "absent", "failed", "simulated" or "measured"."""
        if self.row.absent:
            return "absent"
        if self.failed:
            return "failed"
        return "simulated" if self.device in SIMULATED else "measured"


@dataclass
class Results:
    """All rows, and the GFLOP/s of the machine's matrix products in each round."""

    rows: list[RowResult]
    gflops: list[list[float]]
    partial: bool = False


def run_child(task: dict[str, Any], timeout: float = TIMEOUT_S) -> dict[str, Any]:
    """Do one task of `child.WORK` in a fresh process.

    Raises:
        SamEdgeError: it failed, crashed or did not end; says how.
    """
    environment = os.environ | dict.fromkeys(_BLAS_THREADS, str(task["threads"]))
    if task["work"] == "matmul":
        environment = {name: value for name, value in environment.items() if name not in _OLDER_KERNELS}
    answer: dict[str, Any] = run_task("sam_edge.benchmarks.measure.child", task, environment, timeout)
    return answer


def matmul_gflops(threads: int, seconds: float, child: Child = run_child) -> list[float]:
    """GFLOP/s of NumPy's FP32 matrix products, a sample each: how fast the machine is just now."""
    task = {"work": "matmul", "side": MATMUL_SIDE, "seconds": seconds, "threads": threads}
    found: list[float] = child(task)["gflops"]
    return found


def measure(plan: Plan, child: Child = run_child, say: Say = lambda _: None) -> Results:
    """Carry out a plan. Interrupted by Ctrl-C, it returns what it has, marked partial.

    A row that fails keeps what was measured before; the others go on.
    """
    results = Results([RowResult(row) for row in plan.rows], [])
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.npy"
        np.save(image, plan.image)
        try:
            for found in results.rows:
                if not found.row.absent:
                    _measure_parity(plan, found, child, say)
            _measure_latency(plan, results, child, say, image)
        except KeyboardInterrupt:
            results.partial = True
    return results


def _measure_parity(plan: Plan, found: RowResult, child: Child, say: Say) -> None:
    row = found.row
    say(f"{row.label}: parity")
    drawings = None
    if plan.drawings is not None:
        drawings = str(plan.drawings / f"{row.id}-{row.device}".replace(" ", "-"))
    task = _task(plan, row) | {"work": "parity", "golden": str(plan.golden), "precision": row.precision}
    try:
        answer = child(task | {"drawings": drawings})
        found.device, found.parity, found.worst = answer["device"], answer["parity"], answer["worst"]
        if plan.annotations is not None:
            say(f"{row.label}: ground truth")
            given = {"annotations": str(plan.annotations), "images": str(plan.images)}
            found.ground_truth = child(task | given | {"work": "ground_truth"})["ground_truth"]
    except SamEdgeError as error:
        found.failed = str(error)


def _measure_latency(plan: Plan, results: Results, child: Child, say: Say, image: Path) -> None:
    seconds = plan.seconds / plan.rounds
    for number, turns in enumerate(shuffled_rounds(results.rows, plan.rounds, plan.seed), 1):
        where = f"round {number} of {plan.rounds}"
        say(f"{where}: matrix products")
        results.gflops.append(matmul_gflops(plan.threads, min(1.0, seconds), child))
        for found in turns:
            if found.row.absent or found.failed:
                continue
            # A simulator needs minutes, and has no speed to measure: once is enough.
            if found.device == NPU_SIMULATED and found.samples:
                continue
            say(f"{where}: {found.row.label}")
            task = _task(plan, found.row) | {"work": "latency", "image": str(image), "seconds": seconds}
            try:
                found.add_latency(child(task))
            except SamEdgeError as error:
                found.failed = f"in {where}: {error}"


def _task(plan: Plan, row: Row) -> dict[str, Any]:
    return {
        "bundle": str(plan.bundle),
        "variant": row.id,
        "backend": row.backend,
        "device": row.device,
        "threads": plan.threads,
        "reference": str(plan.reference),
    }


def describe_row(found: RowResult, source: str, flops: float | None, gflops: float | None) -> dict[str, Any]:
    """A row of report.json.

    Args:
        found: what was measured.
        source: what masks were compared on: "golden", or "images" of the user's.
        flops: of the encoder for one image; None if not known.
        gflops: of the machine's matrix products; None if not known.
    """
    row = found.row
    times = {name: summarize(found.samples.get(name, [])) for name in PHASES}
    share = None
    encoder = times["encoder_ms"]
    if found.device == "cpu" and flops and gflops and encoder is not None:
        share = flops / (encoder["p50"] / 1e3) / (1e9 * gflops)
    parity = None
    if found.parity is not None:
        parity = {"source": source} | {ours: found.parity[theirs] for ours, theirs in _PARITY.items()}
    return {
        "id": row.id,
        "format": row.format,
        "precision": row.precision,
        "backend": row.backend,
        "device": found.device or row.asked,
        "device_name": row.device,
        "asked": row.asked,
        "status": found.status,
        "reason": row.absent or found.failed,
        **times,
        "drift": drift(times["end_to_end_ms"]),
        "peak_rss_mb": max(found.peaks, default=None),
        "device_memory_mb": max(found.device_memory, default=None),
        "energy_j": float(np.median(found.energy)) if found.energy else None,
        "bytes": row.bytes,
        "placement": found.placement,
        "on_device": share_on_device(found, found.placement),
        "compute_on_device": share_on_device(found, found.compute_placement),
        "matmul_peak_share": share,
        "parity": parity,
        "mean_iou": None if parity is None else parity["mean_iou"],
        "min_iou": None if parity is None else parity["min_iou"],
        "ground_truth": found.ground_truth,
        "worst": found.worst,
    }


def share_on_device(found: RowResult, placement: dict[str, Any] | None) -> float | None:
    """The share of both graphs' nodes on the device that was asked for; None where that is not known."""
    counts = [part for part in (placement or {}).values() if part]
    total = sum(sum(part.values()) for part in counts)
    # The execution provider's name, without the number that tells several alike apart; Core ML has the kind.
    names = {found.row.device, found.row.device.partition(".")[0], found.device}
    taken = sum(number for part in counts for name, number in part.items() if name in names)
    return taken / total if total else None
