"""Mask parity: compares the masks of an exported variant with those of the PyTorch reference.

Measured on the golden data, on boolean masks at the original image's resolution. The gates apply to the mask
that the reference itself picks: the best-scored of its multimask outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..axes import PRECISIONS
from ..bundle.golden import Golden, sample_embedding
from ..bundle.variant import ParityReport
from ..errors import ParityError
from ..imaging.metrics import Mask, boundary_iou, iou
from ..tasks.segmenter import Segmenter
from ..types import ImageEmbedding

# Reported instead of infinity and NaN, which JSON does not have; no gate passes it.
NON_FINITE = 1e30


@dataclass
class _Measurements:
    """Per-prompt results; `picked` masks are those that the reference scores best."""

    picked_ious: list[float] = field(default_factory=list)
    picked_boundary_ious: list[float] = field(default_factory=list)
    all_ious: list[float] = field(default_factory=list)
    score_differences: list[float] = field(default_factory=list)


def run_parity(
    sam: Segmenter,
    golden: Golden,
    precision: str,
    min_iou: float | None = None,
    on_prompt: Callable[[int, Mask, float], None] = lambda *_: None,
) -> ParityReport:
    """Run every golden prompt through `sam` and compare with the reference.

        report = run_parity(sam, read_golden(bundle.check_golden()), "int8")
        report.passed, report.mean_iou

    Args:
        sam: the loaded variant.
        golden: the reference's outputs.
        precision: whose gate applies, of `sam_edge.axes.PRECISIONS`.
        min_iou: replaces the gate on the mean; a higher gate on the minimum is lowered to it.
        on_prompt: called with each prompt's index, the mask (H, W) that the reference picks, and its IoU.

    Raises:
        ParityError: all masks that the reference picks are empty; empty ones are not counted.
    """
    embeddings = [sam.encode(image) for image in golden.images]
    embedding_error = max(_embedding_errors(embeddings, golden))
    found = _measure_prompts(sam, golden, embeddings, on_prompt)
    if not found.picked_ious:
        raise ParityError("every mask of the golden data is empty; choose other golden prompts")
    gate = PRECISIONS.get(precision).gate
    mean_gate = gate.mean if min_iou is None else min_iou
    min_gate = min(gate.min, mean_gate)
    mean, lowest = float(np.mean(found.picked_ious)), float(np.min(found.picked_ious))
    score_difference = max(found.score_differences)
    finite = max(embedding_error, score_difference) < NON_FINITE
    return ParityReport(
        mean_iou=mean,
        p5_iou=float(np.percentile(found.picked_ious, 5)),
        min_iou=lowest,
        boundary_iou=float(np.mean(found.picked_boundary_ious)),
        all_masks_mean_iou=float(np.mean(found.all_ious)),
        all_masks_min_iou=float(np.min(found.all_ious)),
        max_score_difference=score_difference,
        embedding_relative_error=embedding_error,
        num_prompts=len(found.picked_ious),
        gate={"mean_iou": mean_gate, "min_iou": min_gate},
        passed=mean >= mean_gate and lowest >= min_gate and finite,
    )


def _embedding_errors(embeddings: list[ImageEmbedding], golden: Golden) -> list[float]:
    """Return the relative L2 error of each array of each embedding, at the golden data's samples."""
    errors = []
    for embedding, samples in zip(embeddings, golden.embeddings, strict=True):
        for name, expected in samples.items():
            actual = sample_embedding(embedding.arrays[name])
            with np.errstate(all="ignore"):  # overflow is reported, not warned about
                errors.append(_finite(np.linalg.norm(actual - expected) / np.linalg.norm(expected)))
    return errors


def _measure_prompts(
    sam: Segmenter,
    golden: Golden,
    embeddings: list[ImageEmbedding],
    on_prompt: Callable[[int, Mask, float], None],
) -> _Measurements:
    """Compare masks and scores of every golden prompt."""
    found = _Measurements()
    first = sam.manifest.first_multimask
    for index, prompt in enumerate(golden.prompts):
        result = sam._segment(embeddings[prompt.image_index], prompt.prompts, "all", return_logits=True)
        masks: NDArray[np.bool_] = result.masks[0] > prompt.threshold
        scores = result.scores[0]
        picked = first + int(prompt.scores[first:].argmax())
        if prompt.masks[picked].any():
            found.picked_ious.append(iou(masks[picked], prompt.masks[picked]))
            found.picked_boundary_ious.append(boundary_iou(masks[picked], prompt.masks[picked]))
            on_prompt(index, masks[picked], found.picked_ious[-1])
        found.all_ious += [
            iou(mask, reference)
            for mask, reference in zip(masks, prompt.masks, strict=True)
            if reference.any()
        ]
        found.score_differences.append(_finite(np.abs(scores - prompt.scores).max()))
    return found


def _finite(error: np.floating[Any]) -> float:
    return float(error) if np.isfinite(error) else NON_FINITE
