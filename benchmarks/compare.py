"""What changed between two reports, with the noise taken into account.

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

Welch, "The generalization of Student's problem when several different population variances are involved", 1947.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SamEdgeError
from .noise import t_quantile
from .report_rows import Report, Row, key, names, p50, rounds

# What a gate looks at; the other phases are shown.
GATED = ("encoder_ms", "decoder_ms", "decoder_64_ms", "end_to_end_ms")
SHOWN = ("load_ms", "first_ms", "preprocess_ms", "postprocess_ms")
# Probabilities of each tail: of one row by itself, and of all rows and phases together.
OWN_TAIL = 0.005
FAMILY_TAIL = 0.01
# How far off the correction by the calibration may be, as a share of its logarithm.
CALIBRATION_ERROR = 0.25
# A machine whose speed differs by more than this is worth a warning.
MACHINE_CHANGE = 1.10

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


def compare(
    a: Report, b: Report, fail_slower: float | None = None, fail_iou: float | None = None
) -> dict[str, Any]:
    """Compare two reports, A before and B after.

    Args:
        a: as `report_rows.read_report` returns.
        b: the same.
        fail_slower: a gate: 0.1 is crossed by a row that is more than 10% slower in one of `GATED`, beyond
            the noise, or that A measured and B could not.
        fail_iou: a gate: 0.01 is crossed by a row whose mean or minimum IoU fell by more than that.

    Returns:
        JSON data: `passed`, `failures` and `warnings` in words, `machine`, `rows`, `only_a`, `only_b`.

    Raises:
        SamEdgeError: no row is in both; or a gate on latency is asked for and no row has two rounds in both.
    """
    by_key = {key(row): row for row in b["rows"]}
    pairs = [(row, by_key[key(row)]) for row in a["rows"] if key(row) in by_key]
    if not pairs:
        raise SamEdgeError("no row (variant, backend, device) is in both reports; compare runs of one bundle")
    changes = _changes(a, b, pairs)
    if fail_slower is not None and not any(changes):
        raise SamEdgeError(
            "no row has latencies of two rounds in both reports, so nothing tells a change from noise; "
            "run `sam-edge benchmark` with --rounds 5"
        )
    machine = _machine(a, b, pairs)
    told = _warnings(a, b, machine)
    failures: list[str] = []
    rows = []
    for name, (old, new), found in zip(names([old for old, _ in pairs]), pairs, changes, strict=True):
        masks, unlike = _masks(old, new)
        if unlike:
            told.append(f"{name}: {unlike}")
        failed = _slower(name, old, new, found, fail_slower) if fail_slower is not None else []
        if fail_iou is not None and not unlike:
            failed += _worse(name, masks, fail_iou)
        failures += failed
        if (old["status"], new["status"]) == ("measured", "measured"):
            untold = [p for p in GATED if old.get(p) is not None and p not in found]
            if untold:
                told.append(
                    f"{name}: {', '.join(map(_words, untold))} cannot be told from noise or is missing in B"
                )
        rows.append(
            {
                **dict(zip(("id", "backend", "device"), key(old), strict=True)),
                "name": name,
                "status": [old["status"], new["status"]],
                "reason": [old.get("reason") or "", new.get("reason") or ""],
                "phases": {phase: change.to_dict() for phase, change in found.items()},
                **masks,
                "peak_rss_mb": [old.get("peak_rss_mb"), new.get("peak_rss_mb")],
                "bytes": [old.get("bytes"), new.get("bytes")],
                "failed": bool(failed),
            }
        )
    if fail_slower is not None:
        told += _blind(changes, fail_slower)
    shared = {key(old) for old, _ in pairs}
    return {
        "passed": not failures,
        "failures": failures,
        "warnings": told,
        "machine": machine,
        "rows": rows,
        "only_a": [list(key(row)) for row in a["rows"] if key(row) not in shared],
        "only_b": [list(key(row)) for row in b["rows"] if key(row) not in shared],
    }


def _words(phase: str) -> str:
    return {"decoder_64_ms": "decoder x 64"}.get(phase, phase.removesuffix("_ms").replace("_", " "))


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


def _changes(a: Report, b: Report, pairs: list[tuple[Row, Row]]) -> list[dict[str, Change]]:
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

    Of the rows' variances the median, so that a noisy row does not hide the others; as an estimate it is worth
    about half the degrees of freedom that the mean would have.
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


def _slower(name: str, old: Row, new: Row, found: dict[str, Change], limit: float) -> list[str]:
    if old["status"] == "measured" and new["status"] != "measured":
        why = f": {new['reason']}" if new.get("reason") else ""
        return [f"{name}: was measured in A, is {new['status']} in B{why}"]
    return [
        f"{name}: {_words(phase)} is {change.ratio:.2f} times as slow ({change.low:.2f} to {change.high:.2f})"
        for phase, change in found.items()
        if phase in GATED and change.slower and change.ratio > 1 + limit
    ]


def _masks(old: Row, new: Row) -> tuple[dict[str, Any], str]:
    """IoU in A and B, and why they are not to be compared, if so."""
    masks = {field: [old.get(field), new.get(field)] for field in ("mean_iou", "min_iou")}
    x, y = old.get("parity") or {}, new.get("parity") or {}
    if x and y and any(x.get(name) != y.get(name) for name in ("source", "prompts")):
        told = " and ".join(f"{p.get('prompts', '?')} prompts ({p.get('source', '?')})" for p in (x, y))
        return masks, f"IoU is of other prompts: {told}; not compared"
    return masks, ""


def _worse(name: str, masks: dict[str, Any], limit: float) -> list[str]:
    failed = []
    for field, (old, new) in masks.items():
        what = field.replace("_iou", " IoU")
        if old is not None and new is None:
            failed.append(f"{name}: {what} was {old:.4f} in A, is not measured in B")
        # An IoU of 0.99 - 0.98 is a little over 0.01 in binary.
        elif old is not None and old - new > limit + 1e-9:
            failed.append(f"{name}: {what} fell from {old:.4f} to {new:.4f}")
    return failed


def _machine(a: Report, b: Report, pairs: list[tuple[Row, Row]]) -> dict[str, Any]:
    """How much slower B's machine was, by the calibration, and the rows as measured, in the median."""
    speeds = [rounds(report["machine"].get("matmul_gflops")) for report in (a, b)]
    ratio = None
    if all(speeds):
        ratio = math.exp(float(np.log(speeds[0]).mean() - np.log(speeds[1]).mean()))
    measured = [
        y / x
        for old, new in pairs
        if (old["status"], new["status"]) == ("measured", "measured")
        and (x := p50(old, "end_to_end_ms"))
        and (y := p50(new, "end_to_end_ms"))
    ]
    return {
        "slower_by_calibration": ratio,
        "rows_slower_in_the_median": float(np.median(measured)) if measured else None,
    }


def _warnings(a: Report, b: Report, machine: dict[str, Any]) -> list[str]:
    told = []
    for name, report in (("A", a), ("B", b)):
        if report.get("partial"):
            told.append(f"{name} is partial: its run was interrupted")
    told += [f"{what}: {x} in A, {y} in B" for what, x, y in _differences(a, b)]
    by_calibration, of_rows = machine["slower_by_calibration"], machine["rows_slower_in_the_median"]
    if by_calibration is None:
        told.append(
            "a report has no calibration (machine.matmul_gflops): ratios are as measured, so a slower machine looks like a slower variant"
        )
        return told
    if not 1 / MACHINE_CHANGE < by_calibration < MACHINE_CHANGE:
        rows = "" if of_rows is None else f", and the rows {of_rows:.2f} times in the median"
        told.append(
            f"by the calibration the machine was {by_calibration:.2f} times as slow in B as in A{rows}: ratios are "
            "corrected by the calibration; what slowed it and every row alike (other threads, another BLAS) "
            "looks the same"
        )
    elif of_rows is not None and not 1 / MACHINE_CHANGE < of_rows / by_calibration < MACHINE_CHANGE:
        told.append(
            f"all rows together took {of_rows:.2f} times as long in the median, the calibration {by_calibration:.2f} "
            "times: a change common to all rows, or a load that the calibration did not see"
        )
    return told


def _differences(a: Report, b: Report) -> list[tuple[str, Any, Any]]:
    """What else than the variants differs between the reports."""
    found = []
    for section, fields in (
        ("machine", ("cpu", "isa", "cores", "threads", "governor", "memory_mb", "os", "python", "revision")),
        ("bundle", ("family", "name", "checkpoint_sha256", "input_size")),
        ("settings", ("image_size", "parity", "duration_s", "rounds")),
    ):
        x, y = a.get(section) or {}, b.get(section) or {}
        found += [(f"{section} {f}", x.get(f), y.get(f)) for f in fields if x.get(f) != y.get(f)]
    for what in ("packages", "drivers"):
        x, y = a["machine"].get(what) or {}, b["machine"].get(what) or {}
        found += [
            (name, x.get(name, "none"), y.get(name, "none"))
            for name in sorted({*x, *y})
            if x.get(name) != y.get(name)
        ]
    return found


def _blind(changes: list[dict[str, Change]], limit: float) -> list[str]:
    """A warning where the noise hides what the gate asks for."""
    halves = [
        math.sqrt(change.high / change.low) - 1
        for found in changes
        for phase, change in found.items()
        if phase in GATED
    ]
    widest = max(halves, default=0.0)
    typical = float(np.median(halves)) if halves else 0.0
    if widest <= limit:
        return []
    return [
        f"the noise hides changes below {100 * typical:.0f}% in the median row and phase, {100 * widest:.0f}% in the "
        f"noisiest, and the gate is {100 * limit:.0f}%: more --rounds, or a longer --duration, see smaller ones"
    ]
