"""Measures the latency of one row: load, first mask, then as many images and clicks as fit in a time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_edge.backends.onnxruntime.providers import NPU_SIMULATED
from sam_edge.types import ImageEmbedding, Prompts

from .loading import LoadedRow, load_row
from .machine import device_memory_mb, energy_j
from .worker import Task, milliseconds, peak_rss_mb, repeat

# Prompts of one batch in `decoder_64_ms`.
BATCH = 64
# How a row's time is divided: whole images, then clicks on one, then batches of clicks on it.
IMAGES_SHARE, CLICKS_SHARE, BATCHES_SHARE = 0.6, 0.25, 0.15
# A row whose first image takes longer than this many times its seconds is not warmed up by another one.
TOO_SLOW_TO_WARM_UP = 0.2


class LatencyRun:
    """Runs a loaded row on one image and keeps samples of each phase, in milliseconds.

    Args:
        row: what to run.
        image: (H, W, 3) uint8 RGB.
    """

    def __init__(self, row: LoadedRow, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        self.row, self.image = row, image
        self.centre = np.array([[width / 2, height / 2]])
        points = np.random.default_rng(0).uniform(0, 1, (BATCH, 1, 2)) * [width, height]
        self.batch = Prompts(points, np.ones((BATCH, 1)))
        self.samples: dict[str, list[float]] = {"load_ms": [row.load_ms], "compile_ms": [row.compile_ms]}

    def keep(self, **values: float) -> None:
        """Add a sample to each of these phases."""
        for name, value in values.items():
            self.samples.setdefault(name, []).append(value)

    def encode_and_click(self) -> tuple[ImageEmbedding, dict[str, float]]:
        """Encode the image and click on its centre: the embedding, and the milliseconds of each phase."""
        sam, encoder, decoder = self.row.sam, self.row.encoder, self.row.decoder
        start = time.perf_counter()
        embedding = sam.encode(self.image)
        between = time.perf_counter()
        sam.predict(embedding, self.centre, [1])
        end = time.perf_counter()
        encoding, decoding = encoder.take(), decoder.take()
        return embedding, {
            "preprocess_ms": 1e3 * (between - start) - encoding,
            "encoder_ms": encoding,
            "decoder_ms": decoding,
            "postprocess_ms": 1e3 * (end - between) - decoding,
            "end_to_end_ms": 1e3 * (end - start),
        }

    def images(self, seconds: float) -> int:
        """Encode and click for `seconds`, at least once; how often."""
        return len(repeat(lambda: self.keep(**self.encode_and_click()[1]), seconds))

    def clicks(self, embedding: ImageEmbedding, seconds: float) -> None:
        """Click on an encoded image for `seconds`, at least once."""

        def one_click() -> None:
            total = milliseconds(lambda: self.row.sam.predict(embedding, self.centre, [1]))
            decoding = self.row.decoder.take()
            self.keep(decoder_ms=decoding, postprocess_ms=total - decoding)

        repeat(one_click, seconds)

    def batches(self, embedding: ImageEmbedding, seconds: float) -> None:
        """Decode `BATCH` clicks on an encoded image at once for `seconds`, at least once."""

        def one_batch() -> None:
            self.row.sam._decode(embedding, self.batch, "single")
            self.keep(decoder_64_ms=self.row.decoder.take())

        repeat(one_batch, seconds)


def latency(task: Task) -> dict[str, Any]:
    """Load, first mask, then as many as fit in "seconds"; of a simulated NPU the first only."""
    row, seconds = load_row(task), task["seconds"]
    run = LatencyRun(row, np.load(task["image"], allow_pickle=False))
    embedding, first = run.encode_and_click()
    run.keep(first_ms=first["end_to_end_ms"])
    joules = None
    if row.sam.device == NPU_SIMULATED:
        run.keep(**first)
    else:
        if first["end_to_end_ms"] < 1e3 * TOO_SLOW_TO_WARM_UP * seconds:
            run.encode_and_click()  # runtimes lay out their memory on the first runs
        before = energy_j()
        images = run.images(IMAGES_SHARE * seconds)
        after = energy_j()
        if before is not None and after is not None and after > before:
            joules = (after - before) / images
        run.clicks(embedding, CLICKS_SHARE * seconds)
        run.batches(embedding, BATCHES_SHARE * seconds)
    parts = {"encoder": row.encoder.inner, "decoder": row.decoder.inner}
    return {
        "device": row.sam.device,
        "samples": run.samples,
        "placement": {name: session.placement for name, session in parts.items()},
        "compute_placement": {name: session.compute_placement for name, session in parts.items()},
        "peak_rss_mb": peak_rss_mb(),
        "device_memory_mb": device_memory_mb() if row.sam.device == "gpu" else None,
        "energy_j": joules,
    }
