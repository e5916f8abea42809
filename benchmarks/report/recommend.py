"""Recommends the variant to ship: a pure function of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sam_edge.axes import PRECISIONS
from sam_edge.errors import BackendError

from ..measure.statistics import same_mean
from .rows import Report, Row, iou, milliseconds, names, p50, rounds

END_TO_END = "end_to_end_ms"
# An alternative that takes up to this much longer is mentioned where it is smaller or needs less memory by at
# least this much.
MENTION_SHARE = 0.10
# The two-sided level of the test that tells two rows apart.
TIE_LEVEL = 0.05


def gate(row: Row) -> tuple[float, float]:
    """The mean and the minimum IoU that a row's precision must reach; FP32's where it is unknown."""
    name = str(row.get("precision"))
    found = PRECISIONS.get(name if name in PRECISIONS else "fp32").gate
    return found.mean, found.min


def below_gate(row: Row) -> str:
    """Why a row does not pass the parity gate of its precision; empty where it does."""
    mean, low = row.get("mean_iou"), row.get("min_iou")
    if mean is None:
        return "its masks were not compared"
    mean_gate, min_gate = gate(row)
    if mean < mean_gate:
        return f"mean IoU {iou(mean)}, gate {mean_gate:g}"
    if low is not None and low < min_gate:
        return f"minimum IoU {iou(low)}, gate {min_gate:g}"
    return ""


def pareto_front(cost: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Indices of the points that no other beats in both: cheapest first, each better than the one before."""
    front: list[int] = []
    for i in sorted(range(len(cost)), key=lambda i: (cost[i], -quality[i])):
        if not front or quality[i] > quality[front[-1]]:
            front.append(i)
    return front


def tied(a: Row, b: Row) -> bool:
    """Whether the rounds cannot tell two rows' end to end latencies apart.

    Rows are interleaved, so they are compared round by round, by a t-test of the logarithms of their medians.
    With fewer than two rounds nothing can be told apart.

    Raises:
        BackendError: SciPy is not installed.
    """
    x, y = rounds(a.get(END_TO_END)), rounds(b.get(END_TO_END))
    if len(x) != len(y) or len(x) < 2:
        return True
    return same_mean(np.log(x), np.log(y), TIE_LEVEL)


def recommend(report: Report) -> dict[str, Any]:
    """Recommend the fastest measured row, end to end, whose masks pass their gate.

    Simulated rows have no speed, and PyTorch is the reference, not a variant to ship: neither is recommended.

    Returns:
        `id`, `backend`, `device` (None where no row qualifies) and `words`: the reason, which rows are as
        fast within the noise, and which are smaller for little more time.
    """
    rows = report["rows"]
    name = {id(row): text for row, text in zip(rows, names(rows), strict=True)}
    timed = [r for r in rows if r["status"] == "measured" and p50(r, END_TO_END) is not None]
    timed.sort(key=_time)
    shipped = [r for r in timed if r["backend"] != "pytorch"]
    good = [r for r in shipped if not below_gate(r)]
    if not good:
        words = "No variant can be recommended: " + (
            "; ".join(f"{name[id(r)]} is below its gate ({below_gate(r)})" for r in shipped)
            or "none was measured on a device of this machine"
        )
        return {"id": None, "backend": None, "device": None, "words": words + "."}
    best, others = good[0], good[1:]
    mean_gate = (
        "" if (best.get("parity") or {}).get("source", "golden") != "golden" else f", gate {gate(best)[0]:g}"
    )
    said = [
        f"Ship {best['id']} with {best['backend']} on {best['device']}: at {milliseconds(_time(best))} ms "
        f"end to end it is the fastest of the {len(good)} rows whose masks pass their gate "
        f"(mean IoU {iou(best['mean_iou'])}{mean_gate})."
    ]
    try:
        equal = [r for r in others if tied(r, best)]
    except BackendError as error:
        equal = []
        said.append(f"Other rows may be as fast within the noise: {error}.")
    if equal:
        listed = ", ".join(f"{name[id(r)]} ({milliseconds(_time(r))} ms)" for r in equal)
        said.append(f"As fast within the noise: {listed}; the rounds of this run do not tell them apart.")
    said += [f"{name[id(r)]} {text}." for r in others if (text := _saves(r, best))]
    said += [
        f"{name[id(r)]} is faster ({milliseconds(_time(r))} ms) but below its gate ({why})."
        for r in shipped
        if _time(r) < _time(best) and (why := below_gate(r))
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
    """What a row saves for at most `MENTION_SHARE` more time; empty where it saves little."""
    longer = _time(row) / _time(best) - 1
    if longer > MENTION_SHARE:
        return ""
    saved = []
    for field, scale, what in (
        ("bytes", 1e6, "MB on disk"),
        ("peak_rss_mb", 1.0, "MB of peak memory"),
    ):
        mine, its = row.get(field), best.get(field)
        if mine is not None and its and mine <= (1 - MENTION_SHARE) * its:
            saved.append(f"{mine / scale:.3g} instead of {its / scale:.3g} {what}")
    if not saved:
        return ""
    cost = f" for {100 * longer:.0f}% more time" if longer >= 0.005 else " in the same time"
    return f"needs {' and '.join(saved)}{cost} (mean IoU {iou(row['mean_iou'])})"
