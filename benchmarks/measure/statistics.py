"""Samples of one figure, from several rounds, as the report has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def summarize(rounds: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """Percentiles over all samples, and what tells noise and drift.

    Args:
        rounds: the samples of each round, in the order in which they were taken; empty rounds count for
            nothing.

    Returns:
        p50, p90, p99; n, how many samples; rounds, the median of each round; first_fifth and last_fifth, the
        medians of the first and the last fifth of all samples. None without samples.
    """
    filled = [list(one) for one in rounds if len(one)]
    if not filled:
        return None
    samples = np.array([value for one in filled for value in one], np.float64)
    fifth = max(1, len(samples) // 5)
    p50, p90, p99 = np.percentile(samples, [50, 90, 99])
    return {
        "p50": float(p50),
        "p90": float(p90),
        "p99": float(p99),
        "n": len(samples),
        "rounds": [float(np.median(one)) for one in filled],
        "first_fifth": float(np.median(samples[:fifth])),
        "last_fifth": float(np.median(samples[-fifth:])),
    }


def drift(summary: dict[str, Any] | None) -> float | None:
    """The last fifth's median over the first's: above 1, the device became slower. None without samples."""
    if summary is None:
        return None
    return float(summary["last_fifth"] / summary["first_fifth"]) if summary["first_fifth"] else None
