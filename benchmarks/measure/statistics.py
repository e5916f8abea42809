"""Summarises the samples of one figure, and compares rows (SciPy, of the `bench` extra)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sam_edge.errors import BackendError
from sam_edge.system.install import install_command


def summarize(rounds: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """Percentiles over all samples, and what shows noise and drift.

    Args:
        rounds: the samples of each round, in the order in which they were taken; empty rounds are skipped.

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


def scipy_stats() -> Any:
    """The module `scipy.stats`.

    Raises:
        BackendError: SciPy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise BackendError(
            f"telling a change from noise needs SciPy, which is not installed; {install_command('bench')}"
        ) from error
    return stats


def t_quantile(tail: float, dof: float) -> float:
    """The value that a Student's t variable with `dof` degrees of freedom exceeds with probability `tail`."""
    return float(scipy_stats().t.isf(tail, dof))


def chi2_median(dof: float) -> float:
    """The median of a chi-squared variable with `dof` degrees of freedom, over its mean."""
    return float(scipy_stats().chi2.median(dof)) / dof


def same_mean(x: ArrayLike, y: ArrayLike, level: float) -> bool:
    """Whether a paired t-test cannot tell the means of `x` and `y` apart at this two-sided level."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # samples that are all alike
        pvalue = float(scipy_stats().ttest_rel(x, y).pvalue)
    # Not a number where the pairs do not differ at all.
    return not pvalue < level
