"""Parity: do an export's masks agree with the PyTorch reference's?

Measured on the golden data, on boolean masks at the original image's resolution. The gates apply to
the mask that the reference itself picks: the best-scored of its three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..bundle.golden import Golden, sample_embedding
from ..bundle.variant import ParityReport
from ..errors import ParityError
from ..imaging.metrics import Mask, boundary_iou, iou
from ..tasks.segmenter import Segmenter

# Mean and minimum IoU that each precision must reach.
GATES = {"fp32": (0.999, 0.99), "fp16": (0.995, 0.95), "bf16": (0.995, 0.95), "int8": (0.95, 0.80)}

# What is reported of infinities and NaN, which JSON has not: no gate lets them pass.
OVERFLOWN = 1e30


def _finite(error: np.floating[Any]) -> float:
    return float(error) if np.isfinite(error) else OVERFLOWN


def run_parity(
    sam: Segmenter,
    golden: Golden,
    precision: str,
    min_iou: float | None = None,
    seen: Callable[[int, Mask, float], None] = lambda *_: None,
) -> ParityReport:
    """Run every golden prompt through `sam` and compare.

    Args:
        sam: the loaded variant.
        golden: the reference's answers.
        precision: whose gate applies, a key of `GATES`.
        min_iou: replaces the gate on the mean.
        seen: called with each prompt's number, the mask that the reference picks, and its IoU.

    Raises:
        ParityError: the reference picks no mask that is not empty; empty ones count for nothing.
    """
    embeddings = [sam.encode(image) for image in golden.images]
    errors = []
    for embedding, samples in zip(embeddings, golden.embeddings, strict=True):
        for name, expected in samples.items():
            got = sample_embedding(embedding.arrays[name])
            with np.errstate(all="ignore"):  # an overflow is counted, not warned of
                errors.append(_finite(np.linalg.norm(got - expected) / np.linalg.norm(expected)))
    picked, boundary, every, score_differences = [], [], [], []
    for number, prompt in enumerate(golden.prompts):
        result = sam.segment(embeddings[prompt.image_index], prompt.prompts, "all", return_logits=True)
        masks, scores = result.masks[0] > prompt.threshold, result.scores[0]
        first = sam.manifest.first_multimask
        best = first + int(prompt.scores[first:].argmax())
        if prompt.masks[best].any():
            picked.append(iou(masks[best], prompt.masks[best]))
            boundary.append(boundary_iou(masks[best], prompt.masks[best]))
            seen(number, masks[best], picked[-1])
        every += [
            iou(ours, reference)
            for ours, reference in zip(masks, prompt.masks, strict=True)
            if reference.any()
        ]
        score_differences.append(_finite(np.abs(scores - prompt.scores).max()))
    if not picked:
        raise ParityError("every mask of the golden data is empty; choose other golden prompts")
    mean_gate, min_gate = GATES[precision]
    mean_gate = mean_gate if min_iou is None else min_iou
    min_gate = min(min_gate, mean_gate)
    mean, lowest = float(np.mean(picked)), float(np.min(picked))
    return ParityReport(
        mean_iou=mean,
        p5_iou=float(np.percentile(picked, 5)),
        min_iou=lowest,
        boundary_iou=float(np.mean(boundary)),
        all_masks_mean_iou=float(np.mean(every)),
        all_masks_min_iou=float(np.min(every)),
        max_score_difference=max(score_differences),
        embedding_relative_error=max(errors),
        num_prompts=len(picked),
        gate={"mean_iou": mean_gate, "min_iou": min_gate},
        passed=mean >= mean_gate and lowest >= min_gate and max(errors + score_differences) < OVERFLOWN,
    )
