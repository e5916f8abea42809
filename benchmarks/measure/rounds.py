"""Run rows in rounds, each in a fresh process, and put what comes back together.

In each round every row has its turn, in random order, so that a machine that becomes slower does so for all
of them; between the rounds, NumPy's matrix products say how fast the machine is just then.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_edge.backends.onnxruntime.providers import NPU_SIMULATED
from sam_edge.errors import SamEdgeError
from sam_edge.system.process import python_command

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

# A task in, an answer out: `run_child`, or a test's own.
Child = Callable[[dict[str, Any]], dict[str, Any]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        bundle: its directory.
        rows: what to measure.
        golden: the reference's answers for parity.
        image: what latency is measured with, (H, W, 3) uint8 RGB.
        seconds: of steady state for each row, over all rounds.
        rounds: how many.
        threads: within one operator.
        seed: of the order of rows.
        reference: the PyTorch checkpoint, for rows of PyTorch.
        annotations, images: COCO JSON of ground-truth masks and its pictures.
        pictures: a directory for pictures of the worst masks; None for none.
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
    pictures: Path | None = None


@dataclass
class Found:
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


@dataclass
class Results:
    """All rows, and the machine's matrix products of each round in GFLOP/s."""

    rows: list[Found]
    gflops: list[list[float]]
    partial: bool = False


class _ChildError(SamEdgeError):
    """A row's process ended without an answer, or with an error."""


def run_child(task: dict[str, Any], timeout: float = 3600) -> dict[str, Any]:
    """Do one task in a fresh process.

    Raises:
        SamEdgeError: it failed, crashed or did not end; says how.
    """
    environment = os.environ | dict.fromkeys(_BLAS_THREADS, str(task["threads"]))
    if task["work"] == "matmul":
        environment = {name: value for name, value in environment.items() if name not in _OLDER_KERNELS}
    try:
        done = subprocess.run(
            python_command("sam_edge.benchmarks.measure.child"),
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise _ChildError(f"it had not ended after {timeout:.0f} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise _ChildError(f"its process ended with {how}{': ' + lines[-1] if lines else ''}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise _ChildError(str(answer["error"]))
    ok: dict[str, Any] = answer["ok"]
    return ok


def measure(plan: Plan, child: Child = run_child, say: Say = lambda _: None) -> Results:
    """Run a plan. Interrupted by Ctrl-C, it returns what there is, marked partial.

    A row that fails keeps what was measured before; the others go on.
    """
    results = Results([Found(row) for row in plan.rows], [])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        np.save(folder / "image.npy", plan.image)
        try:
            _parity(plan, results, child, say)
            _latency(plan, results, child, say, folder / "image.npy")
        except KeyboardInterrupt:
            results.partial = True
    return results


def _parity(plan: Plan, results: Results, child: Child, say: Say) -> None:
    for found in results.rows:
        if found.row.absent:
            continue
        say(f"{_name(found.row)}: parity")
        task = _task(plan, found.row) | {"work": "parity", "golden": str(plan.golden), "pictures": None}
        task["precision"] = found.row.precision
        if plan.pictures is not None:
            task["pictures"] = str(plan.pictures / f"{found.row.id}-{found.row.device}".replace(" ", "-"))
        try:
            answer = child(task)
            found.device, found.parity, found.worst = answer["device"], answer["parity"], answer["worst"]
            if plan.annotations is not None:
                say(f"{_name(found.row)}: ground truth")
                given = {"annotations": str(plan.annotations), "images": str(plan.images)}
                found.ground_truth = child(task | given | {"work": "truth"})["ground_truth"]
        except SamEdgeError as error:
            found.failed = str(error)


def _latency(plan: Plan, results: Results, child: Child, say: Say, image: Path) -> None:
    order = random.Random(plan.seed)
    for number in range(plan.rounds):
        say(f"round {number + 1} of {plan.rounds}: matrix products")
        seconds = min(1.0, plan.seconds / plan.rounds)
        task = {"work": "matmul", "side": MATMUL_SIDE, "seconds": seconds, "threads": plan.threads}
        results.gflops.append(child(task)["gflops"])
        for found in order.sample(results.rows, len(results.rows)):
            if found.row.absent or found.failed:
                continue
            # A simulator takes minutes for what is no speed: once is enough.
            if found.device == NPU_SIMULATED and found.samples:
                continue
            say(f"round {number + 1} of {plan.rounds}: {_name(found.row)}")
            task = _task(plan, found.row) | {"work": "latency", "image": str(image)}
            try:
                _keep(found, child(task | {"seconds": plan.seconds / plan.rounds}))
            except SamEdgeError as error:
                found.failed = f"in round {number + 1} of {plan.rounds}: {error}"


def _task(plan: Plan, row: Row) -> dict[str, Any]:
    return {
        "bundle": str(plan.bundle),
        "variant": row.id,
        "backend": row.backend,
        "device": row.device,
        "threads": plan.threads,
        "reference": str(plan.reference),
    }


def _name(row: Row) -> str:
    return f"{row.id} on {row.device}"


def _keep(found: Found, answer: dict[str, Any]) -> None:
    found.device = answer["device"]
    found.placement, found.compute_placement = answer["placement"], answer["compute_placement"]
    for name, values in answer["samples"].items():
        found.samples.setdefault(name, []).append(values)
    for values, key in (
        (found.peaks, "peak_rss_mb"),
        (found.device_memory, "device_memory_mb"),
        (found.energy, "energy_j"),
    ):
        if answer[key] is not None:
            values.append(answer[key])


def describe_row(found: Found, source: str, flops: float | None, gflops: float | None) -> dict[str, Any]:
    """A row of report.json.

    Args:
        found: the row.
        source: of parity: "golden", or "images" of the user's.
        flops: of the encoder, for one image; None if not known.
        gflops: the machine's matrix products.
    """
    row = found.row
    times = {name: summarize(found.samples.get(name, [])) for name in PHASES}
    on_cpu = found.device == "cpu"
    share = None
    encoder = times["encoder_ms"]
    if on_cpu and flops and gflops and encoder is not None:
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
        "status": _status(found),
        "reason": row.absent or found.failed,
        **times,
        "drift": drift(times["end_to_end_ms"]),
        "peak_rss_mb": max(found.peaks, default=None),
        "device_memory_mb": max(found.device_memory, default=None),
        "energy_j": float(np.median(found.energy)) if found.energy else None,
        "bytes": row.bytes,
        "placement": found.placement,
        "on_device": _share(found, found.placement),
        "compute_on_device": _share(found, found.compute_placement),
        "matmul_peak_share": share,
        "parity": parity,
        "mean_iou": None if parity is None else parity["mean_iou"],
        "min_iou": None if parity is None else parity["min_iou"],
        "ground_truth": found.ground_truth,
        "worst": found.worst,
    }


def _status(found: Found) -> str:
    if found.row.absent:
        return "absent"
    if found.failed:
        return "failed"
    return "simulated" if found.device in SIMULATED else "measured"


def _share(found: Found, placement: dict[str, Any] | None) -> float | None:
    """Of both graphs' nodes, those on the device asked for."""
    counts = [part for part in (placement or {}).values() if part]
    total = sum(sum(part.values()) for part in counts)
    # An execution provider's name, of several alike without their number; or the kind, of Core ML.
    names = {found.row.device, found.row.device.partition(".")[0], found.device}
    taken = sum(number for part in counts for name, number in part.items() if name in names)
    return taken / total if total else None
