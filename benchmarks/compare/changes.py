"""Tells whether a row became slower between two reports, or the machine did.

The rule, for one phase of one row that both reports measured:

1. Every round's median is multiplied by the speed of the machine in that round, measured by
   matmuls before the rows: a machine that is twice as slow then gives the same figure. On
   a busy 2-core machine this lowered the standard deviation of encoders' medians from 0.25 to 0.15 (of
   logarithms), and what remained grew about in proportion to the matmuls' speed.
2. The ratio of B to A is that of the geometric means over the rounds.
3. Its interval is the wider of two: the row's own (Welch's, 99%), and one from the noise of all rows together
   (their median variance in that phase; 98% for all rows and phases of the comparison at once, by
   Bonferroni). Five rounds show little of one row's noise, but much of the noise of nine rows; the first
   interval is for a row that is noisier than the others. The correction by the machine's speed may itself be
   off by a quarter of its logarithm, which widens both.
4. The row is slower, or faster, where that interval excludes 1. A gate fails where the ratio also exceeds its
   threshold.

Welch, "The generalization of 'Student's' problem when several different population variances are
involved", Biometrika 1947.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..measure.statistics import chi2_median, t_quantile
from ..report.rows import Report, Row, rounds

# The phases that the gate applies to; others are only shown.
GATED = ("encoder_ms", "decoder_ms", "decoder_64_ms", "end_to_end_ms")
SHOWN = ("load_ms", "first_ms", "preprocess_ms", "postprocess_ms")
# The probability of each tail: for one row by itself, and for all rows and phases together.
OWN_TAIL = 0.005
FAMILY_TAIL = 0.01
# How far the correction by the machine's speed may be off, as a share of its logarithm.
SPEED_ERROR = 0.25

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """The logarithm of a row's median in each round, corrected by the machine's speed in that round."""

    values: Array
    mean_log_speed: float

    @property
    def variance(self) -> float:
        """The variance of the mean over the rounds."""
        return float(self.values.var(ddof=1)) / len(self.values)


@dataclass(frozen=True)
class Change:
    """The ratio of B to A in one phase of one row, corrected by the machine's speed, with its interval."""

    a_ms: float
    b_ms: float
    ratio: float
    low: float
    high: float

    @property
    def slower(self) -> bool:
        """Whether B is slower, beyond the noise."""
        return self.low > 1

    @property
    def faster(self) -> bool:
        """Whether B is faster, beyond the noise."""
        return self.high < 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        measured = self.b_ms / self.a_ms
        verdict = "slower" if self.slower else "faster" if self.faster else "same"
        found = {"a_ms": self.a_ms, "b_ms": self.b_ms, "measured_ratio": measured, "ratio": self.ratio}
        return {**found, "low": self.low, "high": self.high, "verdict": verdict}


def sample(report: Report, row: Row, phase: str, calibrated: bool = True) -> Sample | None:
    """Read the rounds of one phase of one row; None with fewer than two.

    The machine's speed is the row's own matmul speed (`row["matmul_gflops"]`) where it has one, else the
    report's. Where it has other rounds than the row, their mean stands for each of them.
    """
    values = (row.get(phase) or {}).get("rounds") or []
    speeds: list[Any] = []
    if calibrated:
        stats = row.get("matmul_gflops") or report["machine"].get("matmul_gflops") or {}
        speeds = stats.get("rounds") or []
    mean = float(np.log(kept).mean()) if (kept := [s for s in speeds if s]) else 0.0
    paired = speeds if len(speeds) == len(values) else [math.exp(mean)] * len(values)
    both = [(value, speed) for value, speed in zip(values, paired, strict=True) if value and speed]
    if len(both) < 2:
        return None
    logs = np.log(np.array(both, np.float64))
    return Sample(logs.sum(axis=1), float(logs[:, 1].mean()))


def changes(a: Report, b: Report, pairs: list[tuple[Row, Row]]) -> list[dict[str, Change]]:
    """For each pair of rows, the change of each phase that has two rounds in both reports."""
    found: list[dict[str, tuple[Sample, Sample]]] = []
    calibrated = all(rounds(report["machine"].get("matmul_gflops")) for report in (a, b))
    for old, new in pairs:
        both = (old["status"], new["status"]) == ("measured", "measured")
        samples = {}
        for phase in (*GATED, *SHOWN) if both else ():
            x, y = sample(a, old, phase, calibrated), sample(b, new, phase, calibrated)
            if x is not None and y is not None:
                samples[phase] = (x, y)
        found.append(samples)
    tests = max(1, sum(phase in GATED for samples in found for phase in samples))
    pooled = {
        phase: _pooled([samples[phase] for samples in found if phase in samples], FAMILY_TAIL / tests)
        for phase in (*GATED, *SHOWN)
    }
    return [
        {
            phase: _change(old[phase]["p50"], new[phase]["p50"], *two, pooled[phase])
            for phase, two in samples.items()
        }
        for (old, new), samples in zip(pairs, found, strict=True)
    ]


def _pooled(samples: list[tuple[Sample, Sample]], tail: float) -> float:
    """Half the width of the interval from the noise of all rows; 0 without rows.

    It uses the median of the rows' variances, so that a noisy row does not hide changes of the others; as an
    estimate the median is worth about half the degrees of freedom of the mean.
    """
    if not samples:
        return 0.0
    variances = [x.variance + y.variance for x, y in samples]
    each = float(np.median([_dof(_parts(two)) for two in samples]))
    # An estimate of a variance is chi-squared, and its median below its mean.
    variance = float(np.median(variances)) / chi2_median(each)
    return t_quantile(tail, max(each, each * len(samples) / 2)) * math.sqrt(variance)


def _parts(two: tuple[Sample, Sample]) -> list[tuple[float, int]]:
    """Variances and degrees of freedom of A and B."""
    return [(s.variance, len(s.values) - 1) for s in two]


def _dof(parts: list[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of estimates of variances, by Welch and Satterthwaite."""
    total = sum(v for v, _ in parts)
    squares = sum(v * v / n for v, n in parts)
    return total * total / squares if squares > 0 else float(sum(n for _, n in parts))


def _change(a_ms: float, b_ms: float, x: Sample, y: Sample, pooled: float) -> Change:
    parts = _parts((x, y))
    own = t_quantile(OWN_TAIL, _dof(parts)) * math.sqrt(sum(v for v, _ in parts))
    correction = SPEED_ERROR * (y.mean_log_speed - x.mean_log_speed)
    half = math.hypot(max(own, pooled), correction)
    difference = float(y.values.mean() - x.values.mean())
    return Change(a_ms, b_ms, math.exp(difference), math.exp(difference - half), math.exp(difference + half))
