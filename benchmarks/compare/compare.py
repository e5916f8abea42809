"""What changed between two reports of `sam-edge benchmark`, with the noise taken into account.

`changes` has the rule for latencies.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sam_edge.errors import SamEdgeError

from ..report.rows import Report, Row, input_note, key, names, p50, rounds
from .changes import GATED, Change, changes

# A machine whose speed differs by more than this is worth a warning.
MACHINE_CHANGE = 1.10


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
    all_changes = changes(a, b, pairs)
    if fail_slower is not None and not any(all_changes):
        raise SamEdgeError(
            "no row has latencies of two rounds in both reports, so nothing tells a change from noise; "
            "run `sam-edge benchmark` with --rounds 5"
        )
    machine = _machine(a, b, pairs)
    told = _warnings(a, b, machine)
    failures: list[str] = []
    rows = []
    for name, (old, new), found in zip(names([old for old, _ in pairs]), pairs, all_changes, strict=True):
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
                missing = ", ".join(map(phase_words, untold))
                told.append(f"{name}: {missing} cannot be told from noise or is missing in B")
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
        told += _blind(all_changes, fail_slower)
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


def phase_words(phase: str) -> str:
    """What people call a phase: "end to end" for `end_to_end_ms`."""
    return {"decoder_64_ms": "decoder x 64"}.get(phase, phase.removesuffix("_ms").replace("_", " "))


def _slower(name: str, old: Row, new: Row, found: dict[str, Change], limit: float) -> list[str]:
    if old["status"] == "measured" and new["status"] != "measured":
        why = f": {new['reason']}" if new.get("reason") else ""
        return [f"{name}: was measured in A, is {new['status']} in B{why}"]
    return [
        f"{name}: {phase_words(phase)} is {change.ratio:.2f} times as slow "
        f"({change.low:.2f} to {change.high:.2f})"
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
    if a["bundle"].get("input_size") != b["bundle"].get("input_size"):
        told += [
            f"{name}: {input_note(report)}" for name, report in (("A", a), ("B", b)) if input_note(report)
        ]
    by_calibration, of_rows = machine["slower_by_calibration"], machine["rows_slower_in_the_median"]
    if by_calibration is None:
        told.append(
            "a report has no calibration (machine.matmul_gflops): ratios are as measured, so a slower "
            "machine looks like a slower variant"
        )
        return told
    if not 1 / MACHINE_CHANGE < by_calibration < MACHINE_CHANGE:
        rows = "" if of_rows is None else f", and the rows {of_rows:.2f} times in the median"
        told.append(
            f"by the calibration the machine was {by_calibration:.2f} times as slow in B as in A{rows}: "
            "ratios are corrected by it, and a change that slowed it and every row alike would not be seen"
        )
    elif of_rows is not None and not 1 / MACHINE_CHANGE < of_rows / by_calibration < MACHINE_CHANGE:
        told.append(
            f"the rows took {of_rows:.2f} times as long in the median, the calibration {by_calibration:.2f} "
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


def _blind(all_changes: list[dict[str, Change]], limit: float) -> list[str]:
    """A warning where the noise hides what the gate asks for."""
    halves = [
        math.sqrt(change.high / change.low) - 1
        for found in all_changes
        for phase, change in found.items()
        if phase in GATED
    ]
    typical = float(np.median(halves)) if halves else 0.0
    if typical <= limit:
        return []
    return [
        f"the noise hides changes below {100 * typical:.0f}% (in the median row and phase; "
        f"{100 * max(halves):.0f}% in the noisiest), and the gate is {100 * limit:g}%: "
        "more --rounds or a longer --duration see smaller ones"
    ]
