"""The tasks of `sam-edge benchmark`, each run in a fresh process for each row and round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_edge.bundle.golden import GoldenPrompt, read_golden
from sam_edge.errors import SamEdgeError
from sam_edge.verify.parity import run_parity

from .latency import latency
from .loading import load_row
from .worker import Task, repeat, serve

# How many of a row's worst masks are drawn.
WORST = 3


def parity(task: Task) -> dict[str, Any]:
    """Compare the row's masks with the reference's, and draw the worst."""
    golden = read_golden(Path(task["golden"]))
    sam = load_row(task).sam
    lowest: list[tuple[float, int, NDArray[np.bool_]]] = []

    def see(number: int, mask: NDArray[np.bool_], score: float) -> None:
        lowest.append((score, number, mask))
        lowest.sort(key=lambda one: one[0])
        del lowest[WORST:]

    report = run_parity(sam, golden, task["precision"], on_prompt=see).to_json()
    worst = []
    for score, number, mask in lowest:
        prompt = golden.prompts[number]
        worst.append({"prompt": describe_prompt(prompt), "iou": score, "image": None})
        if task["drawings"] is not None:
            from .drawing import write_comparison

            first = sam.manifest.first_multimask
            reference = prompt.masks[first + int(prompt.scores[first:].argmax())]
            path = f"{task['drawings']}-{len(worst)}.png"
            write_comparison(Path(path), golden.images[prompt.image_index], reference, mask, prompt)
            worst[-1]["image"] = path
    return {"device": sam.device, "parity": report, "worst": worst}


def describe_prompt(prompt: GoldenPrompt) -> str:
    """For example "image 2, 3 points, box"."""
    parts = [f"image {prompt.image_index + 1}"]
    if prompt.point_labels is not None:
        parts.append(f"{len(prompt.point_labels)} point{'s' if len(prompt.point_labels) > 1 else ''}")
    if prompt.box is not None:
        parts.append("box")
    if prompt.mask_input is not None:
        parts.append("mask")
    return ", ".join(parts)


def ground_truth(task: Task) -> dict[str, Any]:
    """Compare the row's masks with the ground truth of a data set."""
    from .ground_truth import evaluate

    sam = load_row(task).sam
    return {
        "device": sam.device,
        "ground_truth": evaluate(sam, Path(task["annotations"]), Path(task["images"])),
    }


def matmul(task: Task) -> dict[str, Any]:
    """Multiply FP32 matrices with NumPy's BLAS for "seconds": GFLOP/s of each product."""
    side = task["side"]
    rng = np.random.default_rng(0)
    a, b = rng.random((side, side), np.float32), rng.random((side, side), np.float32)
    out = np.empty_like(a)
    np.matmul(a, b, out)  # starts the threads
    return {"gflops": [2e-6 * side**3 / ms for ms in repeat(lambda: np.matmul(a, b, out), task["seconds"])]}


WORK: dict[str, Callable[[Task], dict[str, Any]]] = {
    "latency": latency,
    "parity": parity,
    "ground_truth": ground_truth,
    "matmul": matmul,
}


def main() -> None:
    """Answer tasks until stdin ends."""
    serve(WORK, expected=SamEdgeError)
