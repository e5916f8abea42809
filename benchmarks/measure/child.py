"""What runs in a fresh process for each row and round: a task in JSON from stdin, its answer to stdout.

    {"work": "latency", ...} -> {"ok": {...}} or {"error": "...", "kind": "BackendError"}

A process of its own gives each row its own memory, and a crash ends one row only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_edge.backends import Backend, Session, get_backend
from sam_edge.backends.providers import NPU_SIMULATED
from sam_edge.bundle.bundle import Bundle, open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.bundle.variant import Variant
from sam_edge.errors import SamEdgeError
from sam_edge.runtime.opener import OpenedGraphs, open_graph
from sam_edge.runtime.sam import Sam
from sam_edge.types import Arrays, ImageEmbedding, Prompts
from sam_edge.verify.parity import run_parity

from .machine import device_memory_mb, energy_j, peak_rss_mb

MANY = 64
# Of a slice: whole images, then clicks on one, then many clicks at once.
_SHARES = (0.6, 0.25, 0.15)
_WORST = 3


class Timed:
    """A session that keeps how long each run took, in milliseconds."""

    def __init__(self, session: Session) -> None:
        self.times: list[float] = []
        self.inner = session
        self.session = Session(self._run, session.device, session.close)

    def _run(self, inputs: Arrays) -> Arrays:
        start = time.perf_counter()
        outputs = self.inner.run(inputs)
        self.times.append(1e3 * (time.perf_counter() - start))
        return outputs

    def taken(self) -> float:
        """What the runs since the last call took together."""
        total, self.times = sum(self.times), []
        return total


def main() -> None:
    """Do one task."""
    task = json.load(sys.stdin)
    # What libraries print is not the answer.
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        answer: dict[str, Any] = {"ok": _WORK[task["work"]](task)}
    except SamEdgeError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    except MemoryError as error:
        answer = {"error": f"out of memory: {error}", "kind": "MemoryError"}
    with answer_to:
        json.dump(answer, answer_to)


def open_row(task: dict[str, Any]) -> tuple[Bundle, Variant, Backend]:
    """The bundle, the variant and the backend that a task names."""
    if task["backend"] == "pytorch":
        from .pytorch import PyTorch, variant_of

        bundle = open_bundle(Path(task["bundle"]))
        name, size = task["variant"], bundle.manifest.input.size[0]
        return bundle, variant_of(bundle, name), PyTorch(name, Path(task["reference"]), size)
    bundle = open_bundle(Path(task["bundle"]))
    return bundle, bundle.variant(task["variant"]), get_backend(task["backend"])


def load_timed(task: dict[str, Any]) -> tuple[Sam, Timed, Timed, float, float]:
    """The row's `Sam`, its two sessions, and what loading and compiling took in milliseconds."""
    start = time.perf_counter()
    bundle, variant, backend = open_row(task)
    bundle.check_files(variant)
    backend.devices()  # imports the runtime
    before = time.perf_counter()
    encoder, decoder = (
        Timed(
            open_graph(bundle, variant, variant.graphs[part].path, backend, task["device"], task["threads"])
        )
        for part in ("encoder", "decoder")
    )
    end = time.perf_counter()
    sessions = {"encoder": encoder.session, "decoder": decoder.session}
    sam = Sam(OpenedGraphs(bundle, variant, backend.name, sessions))
    return sam, encoder, decoder, 1e3 * (end - start), 1e3 * (end - before)


def latency(task: dict[str, Any]) -> dict[str, Any]:
    """Load, first mask, then as many as fit in `seconds`; only the first of a simulated NPU."""
    image: NDArray[np.uint8] = np.load(task["image"], allow_pickle=False)
    sam, encoder, decoder, load_ms, compile_ms = load_timed(task)
    samples: dict[str, list[float]] = {"load_ms": [load_ms], "compile_ms": [compile_ms]}
    height, width = image.shape[:2]
    middle = np.array([[width / 2, height / 2]])

    def keep(**values: float) -> None:
        for name, value in values.items():
            samples.setdefault(name, []).append(value)

    def whole_image() -> tuple[ImageEmbedding, dict[str, float]]:
        start = time.perf_counter()
        embedding = sam.encode(image)
        between = time.perf_counter()
        sam.predict(embedding, middle, [1])
        end = time.perf_counter()
        encoding, decoding = encoder.taken(), decoder.taken()
        return embedding, {
            "preprocess_ms": 1e3 * (between - start) - encoding,
            "encoder_ms": encoding,
            "decoder_ms": decoding,
            "postprocess_ms": 1e3 * (end - between) - decoding,
            "end_to_end_ms": 1e3 * (end - start),
        }

    embedding, first = whole_image()
    keep(first_ms=first["end_to_end_ms"])
    is_simulated = sam.device == NPU_SIMULATED
    if first["end_to_end_ms"] < 200 * task["seconds"] and not is_simulated:
        whole_image()  # runtimes lay out their memory on the first runs
    used, energy_from = 0, energy_j()

    def one_image() -> None:
        nonlocal used
        used += 1
        keep(**whole_image()[1])

    def one_click() -> None:
        start = time.perf_counter()
        sam.predict(embedding, middle, [1])
        total, decoding = 1e3 * (time.perf_counter() - start), decoder.taken()
        keep(decoder_ms=decoding, postprocess_ms=total - decoding)

    points = np.random.default_rng(0).uniform(0, 1, (MANY, 1, 2)) * [width, height]
    many = Prompts(points, np.ones((MANY, 1)))

    def many_clicks() -> None:
        sam.decode(embedding, many, "single")
        keep(decoder_64_ms=decoder.taken())

    if is_simulated:
        keep(**first)
    else:
        _repeat(one_image, _SHARES[0] * task["seconds"])
    energy_to = energy_j()
    if not is_simulated:
        _repeat(one_click, _SHARES[1] * task["seconds"])
        _repeat(many_clicks, _SHARES[2] * task["seconds"])
    parts = {"encoder": encoder, "decoder": decoder}
    joules = None
    if energy_from is not None and energy_to is not None and energy_to > energy_from:
        joules = (energy_to - energy_from) / used
    return {
        "device": sam.device,
        "samples": samples,
        "placement": {name: one.inner.placement for name, one in parts.items()},
        "compute_placement": {name: one.inner.compute_placement for name, one in parts.items()},
        "peak_rss_mb": peak_rss_mb(),
        "device_memory_mb": device_memory_mb() if sam.device == "gpu" else None,
        "energy_j": joules,
    }


def _repeat(work: Callable[[], None], seconds: float) -> None:
    """At least once."""
    end = time.perf_counter() + seconds
    work()
    while time.perf_counter() < end:
        work()


def parity(task: dict[str, Any]) -> dict[str, Any]:
    """Masks against the reference's, and pictures of the worst."""
    golden = read_golden(Path(task["golden"]))
    sam, *_ = load_timed(task)
    lowest: list[tuple[float, int, NDArray[np.bool_]]] = []

    def see(number: int, mask: NDArray[np.bool_], score: float) -> None:
        lowest.append((score, number, mask))
        lowest.sort(key=lambda one: one[0])
        del lowest[_WORST:]

    report = run_parity(sam, golden, task["precision"], seen=see).to_json()
    worst = []
    for score, number, mask in lowest:
        prompt = golden.prompts[number]
        worst.append({"prompt": _in_words(prompt), "iou": score, "image": None})
        if task["pictures"] is not None:
            from .pictures import write_comparison

            first = sam.manifest.first_multimask
            reference = prompt.masks[first + int(prompt.scores[first:].argmax())]
            path = f"{task['pictures']}-{len(worst)}.png"
            write_comparison(Path(path), golden.images[prompt.image_index], reference, mask, prompt)
            worst[-1]["image"] = path
    return {"device": sam.device, "parity": report, "worst": worst}


def _in_words(prompt: Any) -> str:
    parts = [f"image {prompt.image_index + 1}"]
    if prompt.point_labels is not None:
        parts.append(f"{len(prompt.point_labels)} point{'s' if len(prompt.point_labels) > 1 else ''}")
    if prompt.box is not None:
        parts.append("box")
    if prompt.mask_input is not None:
        parts.append("mask")
    return ", ".join(parts)


def truth(task: dict[str, Any]) -> dict[str, Any]:
    """Masks against the ground truth of a data set."""
    from .ground_truth import evaluate

    sam, *_ = load_timed(task)
    return {
        "device": sam.device,
        "ground_truth": evaluate(sam, Path(task["annotations"]), Path(task["images"])),
    }


def matmul(task: dict[str, Any]) -> dict[str, Any]:
    """The FP32 matrix products that NumPy's BLAS reaches on so many threads, in GFLOP/s, a sample each."""
    side = task["side"]
    rng = np.random.default_rng(0)
    a, b = rng.random((side, side), np.float32), rng.random((side, side), np.float32)
    out = np.empty_like(a)
    found: list[float] = []

    def once() -> None:
        start = time.perf_counter()
        np.matmul(a, b, out)
        found.append(2 * side**3 / (time.perf_counter() - start) / 1e9)

    once()
    found.clear()
    _repeat(once, task["seconds"])
    return {"gflops": found}


_WORK: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "latency": latency,
    "parity": parity,
    "truth": truth,
    "matmul": matmul,
}
