"""Whether a row became slower between two reports, or the machine did.

The rule, for one phase of one row that both reports measured:

1. Every round's median is multiplied by the machine's speed in that round, which the calibration (a matrix
   product, measured between the rows) shows: a machine that is twice as slow then gives the same figure.
   On a busy 2-core machine this took the standard deviation of encoders' medians from 0.25 to 0.15 (in
   logarithms), and what remains grew about in proportion to the calibration.
2. The ratio of B to A is that of the geometric means over the rounds.
3. Its interval is the wider of two: the row's own (Welch's, 99%), and one with the noise of all rows together
   (the rows' median variance for that phase; 98% for all rows and phases of the comparison at once, by
   Bonferroni). Five rounds say little of one row's noise, and much of the noise of nine rows; the first
   interval is there for a row that is noisier than the others. A correction by the calibration is itself
   trusted to a quarter of its logarithm only, which widens both.
4. It is slower, or faster, where that interval excludes 1; a gate is crossed where the ratio exceeds the
   threshold as well.

Welch, "The generalization of 'Student's' problem when several different population variances are
involved", Biometrika 1947.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..measure.noise import t_quantile
from ..report.rows import Report, Row, rounds

# What a gate looks at; the other phases are shown.
GATED = ("encoder_ms", "decoder_ms", "decoder_64_ms", "end_to_end_ms")
SHOWN = ("load_ms", "first_ms", "preprocess_ms", "postprocess_ms")
# Probabilities of each tail: of one row by itself, and of all rows and phases together.
OWN_TAIL = 0.005
FAMILY_TAIL = 0.01
# How far off the correction by the calibration may be, as a share of its logarithm.
CALIBRATION_ERROR = 0.25

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Logarithms of a row's medians, one a round, corrected by the machine's speed in that round."""

    values: Array
    mean_log_speed: float

    @property
    def variance(self) -> float:
        """Of the mean over the rounds."""
        return float(self.values.var(ddof=1)) / len(self.values)


@dataclass(frozen=True)
class Change:
    """The ratio of B to A of one phase of one row, corrected by the machine's speed, with its interval."""

    a_ms: float
    b_ms: float
    ratio: float
    low: float
    high: float

    @property
    def slower(self) -> bool:
        """Beyond the noise."""
        return self.low > 1

    @property
    def faster(self) -> bool:
        """Beyond the noise."""
        return self.high < 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        measured = self.b_ms / self.a_ms
        verdict = "slower" if self.slower else "faster" if self.faster else "same"
        found = {"a_ms": self.a_ms, "b_ms": self.b_ms, "measured_ratio": measured, "ratio": self.ratio}
        return {**found, "low": self.low, "high": self.high, "verdict": verdict}


def sample(report: Report, row: Row, phase: str, calibrated: bool = True) -> Sample | None:
    """The rounds of one phase of one row; None with fewer than two.

    The machine's speed is the row's own calibration (`row["matmul_gflops"]`) where it has one, else the
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
    """Half the width of the interval that the noise of all rows gives any one of them; 0 without rows.

    Of the rows' variances the median, so that a noisy row does not hide the others; as an estimate it is
    worth about half the degrees of freedom that the mean would have.
    """
    if not samples:
        return 0.0
    variances = [x.variance + y.variance for x, y in samples]
    each = float(np.median([_dof(_parts(two)) for two in samples]))
    # The median of a chi-squared variable is below its mean (Wilson and Hilferty).
    variance = float(np.median(variances)) / (1 - 2 / (9 * each)) ** 3
    return t_quantile(tail, max(each, each * len(samples) / 2)) * math.sqrt(variance)


def _parts(two: tuple[Sample, Sample]) -> list[tuple[float, int]]:
    """Variance and degrees of freedom in A and in B."""
    return [(s.variance, len(s.values) - 1) for s in two]


def _dof(parts: list[tuple[float, int]]) -> float:
    """Of a sum of independent estimates of variances, by Welch and Satterthwaite."""
    total = sum(v for v, _ in parts)
    squares = sum(v * v / n for v, n in parts)
    return total * total / squares if squares > 0 else float(sum(n for _, n in parts))


def _change(a_ms: float, b_ms: float, x: Sample, y: Sample, pooled: float) -> Change:
    parts = _parts((x, y))
    own = t_quantile(OWN_TAIL, _dof(parts)) * math.sqrt(sum(v for v, _ in parts))
    correction = CALIBRATION_ERROR * (y.mean_log_speed - x.mean_log_speed)
    half = math.hypot(max(own, pooled), correction)
    difference = float(y.values.mean() - x.values.mean())
    return Change(a_ms, b_ms, math.exp(difference), math.exp(difference - half), math.exp(difference + half))
