"""Which variant to ship: a pure function of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sam_edge.axes import PRECISIONS

from ..measure.noise import t_quantile
from .rows import Report, Row, iou, milliseconds, names, p50, rounds

END_TO_END = "end_to_end_ms"
# An alternative that takes up to this much longer is worth a word where it is smaller or needs less memory,
# by at least as much.
WITHIN = 0.10
# Two rows are told apart where 0 is outside the interval of this two-sided level.
TIE_LEVEL = 0.05
# Against ground truth no mask is perfect: a variant may lose this much of the best row's mean IoU.
GROUND_TRUTH_LOSS = 0.01


def gate(row: Row) -> tuple[float, float]:
    """Mean and minimum IoU that a row's precision must reach; the strictest where it is unknown."""
    name = str(row.get("precision"))
    found = PRECISIONS.get(name if name in PRECISIONS else PRECISIONS.names()[0]).gate
    return found.mean, found.min


def below_gate(row: Row, best_mean: float | None = None) -> str:
    """Why a row's masks do not count as the reference's, in words; empty where they do.

    Args:
        row: of the report.
        best_mean: the largest mean IoU of the report; used where parity is against ground truth.
    """
    mean, low = row.get("mean_iou"), row.get("min_iou")
    if mean is None:
        return "its masks were not compared"
    if str((row.get("parity") or {}).get("source", "")).startswith("ground"):
        least = (mean if best_mean is None else best_mean) - GROUND_TRUTH_LOSS
        return f"mean IoU {iou(mean)} against ground truth, best {iou(best_mean)}" if mean < least else ""
    mean_gate, min_gate = gate(row)
    if mean < mean_gate:
        return f"mean IoU {iou(mean)}, gate {mean_gate:g}"
    if low is not None and low < min_gate:
        return f"minimum IoU {iou(low)}, gate {min_gate:g}"
    return ""


def pareto_front(cost: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Indices of the points that no other beats in both: cheapest first, each better than those before."""
    front: list[int] = []
    for i in sorted(range(len(cost)), key=lambda i: (cost[i], -quality[i])):
        if not front or quality[i] > quality[front[-1]]:
            front.append(i)
    return front


def tied(a: Row, b: Row) -> bool:
    """Whether the rounds cannot tell two rows' end to end latencies apart.

    Rows are interleaved in each round, so they are compared round by round: a t-interval of the logarithm of
    the ratio. With fewer than two rounds nothing can be told apart.
    """
    x, y = rounds(a.get(END_TO_END)), rounds(b.get(END_TO_END))
    if len(x) != len(y) or len(x) < 2:
        return True
    difference = np.log(x) - np.log(y)
    half = t_quantile(TIE_LEVEL / 2, len(x) - 1) * float(difference.std(ddof=1)) / math.sqrt(len(x))
    return abs(float(difference.mean())) <= half


def recommend(report: Report) -> dict[str, Any]:
    """The fastest row, end to end, of those measured here whose masks pass their gate.

    Simulated rows have no speed, and PyTorch is the reference, not a variant to ship: neither is recommended.

    Returns:
        `id`, `backend`, `device` (None where no row qualifies) and `words`, which give the reason, what is
        within the noise of it, and what is smaller for little more time.
    """
    rows = report["rows"]
    name = {id(row): text for row, text in zip(rows, names(rows), strict=True)}
    timed = [r for r in rows if r["status"] == "measured" and p50(r, END_TO_END) is not None]
    timed.sort(key=_time)
    shipped = [r for r in timed if r["backend"] != "pytorch"]
    best_mean = max((r["mean_iou"] for r in timed if r.get("mean_iou") is not None), default=None)
    good = [r for r in shipped if not below_gate(r, best_mean)]
    if not good:
        words = "No variant can be recommended: " + (
            "; ".join(f"{name[id(r)]} is below its gate ({below_gate(r, best_mean)})" for r in shipped)
            or "none was measured on a device of this machine"
        )
        return {"id": None, "backend": None, "device": None, "words": words + "."}
    best, others = good[0], good[1:]
    mean_gate = (
        "" if (best.get("parity") or {}).get("source", "golden") != "golden" else f", gate {gate(best)[0]:g}"
    )
    said = [
        f"Ship {best['id']} with {best['backend']} on {best['device']}: at {milliseconds(_time(best))} ms "
        f"end to end the fastest of the {len(good)} measured here whose masks are right "
        f"(mean IoU {iou(best['mean_iou'])}{mean_gate})."
    ]
    equal = [r for r in others if tied(r, best)]
    if equal:
        listed = ", ".join(f"{name[id(r)]} ({milliseconds(_time(r))} ms)" for r in equal)
        said.append(f"Within the noise of it: {listed}; the rounds of this run do not tell them apart.")
    said += [f"{name[id(r)]} {text}." for r in others if (text := _saves(r, best))]
    said += [
        f"{name[id(r)]} is faster ({milliseconds(_time(r))} ms) but below its gate ({why})."
        for r in shipped
        if _time(r) < _time(best) and (why := below_gate(r, best_mean))
    ]
    said += [
        f"PyTorch ({name[id(r)]}) is faster: {milliseconds(_time(r))} ms."
        for r in timed
        if r["backend"] == "pytorch" and _time(r) < _time(best)
    ]
    if report.get("partial"):
        said.append("The run was interrupted: rows may be missing.")
    return {"id": best["id"], "backend": best["backend"], "device": best["device"], "words": " ".join(said)}


def _time(row: Row) -> float:
    value = p50(row, END_TO_END)
    assert value is not None
    return value


def _saves(row: Row, best: Row) -> str:
    """What a row saves for at most `WITHIN` more time; empty where nothing worth a word."""
    longer = _time(row) / _time(best) - 1
    if longer > WITHIN:
        return ""
    saved = []
    for field, scale, what in (
        ("bytes", 1e6, "MB on disk"),
        ("peak_rss_mb", 1.0, "MB of memory at its peak"),
    ):
        mine, its = row.get(field), best.get(field)
        if mine is not None and its and mine <= (1 - WITHIN) * its:
            saved.append(f"{mine / scale:.3g} instead of {its / scale:.3g} {what}")
    if not saved:
        return ""
    cost = f" for {100 * longer:.0f}% more time" if longer >= 0.005 else " in the same time"
    return f"takes {' and '.join(saved)}{cost} (mean IoU {iou(row['mean_iou'])})"
