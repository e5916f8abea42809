"""Compares two reports of `sam-edge benchmark`, with the noise taken into account.

`changes` has the rule for latencies.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sam_edge.errors import SamEdgeError

from ..report.rows import Report, Row, input_note, key, names, p50, rounds
from .changes import GATED, Change, changes

# Warn where the speed of the machine differs by more than this factor.
MACHINE_CHANGE = 1.10


def compare(
    a: Report, b: Report, fail_slower: float | None = None, fail_iou: float | None = None
) -> dict[str, Any]:
    """Compare two reports, A before and B after.

    Args:
        a: as `read_report` returns it.
        b: the same.
        fail_slower: the gate on latency: with 0.1, a row fails that is more than 10% slower in one of
            `GATED`, beyond the noise, or that A measured and B could not.
        fail_iou: the gate on masks: with 0.01, a row fails whose mean or minimum IoU fell by more than that.

    Returns:
        JSON data: `passed`, `failures` and `warnings` (messages), `machine`, `rows`, `only_a`, `only_b`.

    Raises:
        SamEdgeError: no row is in both; or there is a gate on latency, and no row has two rounds in both.
        BackendError: SciPy is not installed.
    """
    by_key = {key(row): row for row in b["rows"]}
    pairs = [(row, by_key[key(row)]) for row in a["rows"] if key(row) in by_key]
    if not pairs:
        raise SamEdgeError(
            "no row (variant, backend, device) is in both reports; compare two runs on the same bundle"
        )
    all_changes = changes(a, b, pairs)
    if fail_slower is not None and not any(all_changes):
        raise SamEdgeError(
            "no row has latencies of two rounds in both reports, so changes cannot be told from noise; "
            "run `sam-edge benchmark` with --rounds 5"
        )
    machine = _machine(a, b, pairs)
    warnings, failures, rows = _warnings(a, b, machine), [], []
    for name, (old, new), found in zip(names([old for old, _ in pairs]), pairs, all_changes, strict=True):
        row, row_warnings, row_failures = _row(name, old, new, found, fail_slower, fail_iou)
        rows.append(row)
        warnings += row_warnings
        failures += row_failures
    if fail_slower is not None:
        warnings += _hidden_by_noise(all_changes, fail_slower)
    shared = {key(old) for old, _ in pairs}
    return {
        "passed": not failures,
        "failures": failures,
        "warnings": warnings,
        "machine": machine,
        "rows": rows,
        "only_a": [list(key(row)) for row in a["rows"] if key(row) not in shared],
        "only_b": [list(key(row)) for row in b["rows"] if key(row) not in shared],
    }


def _row(
    name: str,
    old: Row,
    new: Row,
    found: dict[str, Change],
    fail_slower: float | None,
    fail_iou: float | None,
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Compare one row: its part of the answer, its warnings and its failures."""
    warnings, failures = [], []
    masks, reason = _masks(old, new)
    if reason:
        warnings.append(f"{name}: {reason}")
    if fail_slower is not None:
        failures += _slower(name, old, new, found, fail_slower)
    if fail_iou is not None and not reason:
        failures += _worse(name, masks, fail_iou)
    if (old["status"], new["status"]) == ("measured", "measured"):
        missing = [phase_label(p) for p in GATED if old.get(p) is not None and p not in found]
        if missing:
            warnings.append(
                f"{name}: {', '.join(missing)} has fewer than two rounds in A or B, so it was not compared"
            )
    row = {
        **dict(zip(("id", "backend", "device"), key(old), strict=True)),
        "name": name,
        "status": [old["status"], new["status"]],
        "reason": [old.get("reason") or "", new.get("reason") or ""],
        "phases": {phase: change.to_dict() for phase, change in found.items()},
        **masks,
        "peak_rss_mb": [old.get("peak_rss_mb"), new.get("peak_rss_mb")],
        "bytes": [old.get("bytes"), new.get("bytes")],
        "failed": bool(failures),
    }
    return row, warnings, failures


def phase_label(phase: str) -> str:
    """The label of a phase: "end to end" for `end_to_end_ms`."""
    return {"decoder_64_ms": "decoder x 64"}.get(phase, phase.removesuffix("_ms").replace("_", " "))


def _slower(name: str, old: Row, new: Row, found: dict[str, Change], limit: float) -> list[str]:
    if old["status"] == "measured" and new["status"] != "measured":
        why = f": {new['reason']}" if new.get("reason") else ""
        return [f"{name}: was measured in A, but is {new['status']} in B{why}"]
    return [
        f"{name}: {phase_label(phase)} is {change.ratio:.2f} times as slow "
        f"({change.low:.2f} to {change.high:.2f})"
        for phase, change in found.items()
        if phase in GATED and change.slower and change.ratio > 1 + limit
    ]


def _masks(old: Row, new: Row) -> tuple[dict[str, Any], str]:
    """IoU in A and B, and the reason where they cannot be compared."""
    masks = {field: [old.get(field), new.get(field)] for field in ("mean_iou", "min_iou")}
    x, y = old.get("parity") or {}, new.get("parity") or {}
    if x and y and any(x.get(name) != y.get(name) for name in ("source", "prompts")):
        both = " and ".join(f"{p.get('prompts', '?')} prompts ({p.get('source', '?')})" for p in (x, y))
        return masks, f"IoU was measured on other prompts ({both}), so it was not compared"
    return masks, ""


def _worse(name: str, masks: dict[str, Any], limit: float) -> list[str]:
    failed = []
    for field, (old, new) in masks.items():
        what = field.replace("_iou", " IoU")
        if old is not None and new is None:
            failed.append(f"{name}: {what} was {old:.4f} in A, but was not measured in B")
        # In binary, 0.99 - 0.98 is a little over 0.01.
        elif old is not None and old - new > limit + 1e-9:
            failed.append(f"{name}: {what} fell from {old:.4f} to {new:.4f}")
    return failed


def _machine(a: Report, b: Report, pairs: list[tuple[Row, Row]]) -> dict[str, Any]:
    """How much slower B's machine was in matmul speed, and its rows in the median."""
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
        "slower_in_matmuls": ratio,
        "rows_slower_in_the_median": float(np.median(measured)) if measured else None,
    }


def _warnings(a: Report, b: Report, machine: dict[str, Any]) -> list[str]:
    found = []
    for name, report in (("A", a), ("B", b)):
        if report.get("partial"):
            found.append(f"{name} is partial: its run was interrupted")
    found += [f"{what}: {x} in A, {y} in B" for what, x, y in _differences(a, b)]
    if a["bundle"].get("input_size") != b["bundle"].get("input_size"):
        found += [
            f"{name}: {input_note(report)}" for name, report in (("A", a), ("B", b)) if input_note(report)
        ]
    in_matmuls, of_rows = machine["slower_in_matmuls"], machine["rows_slower_in_the_median"]
    if in_matmuls is None:
        found.append(
            "a report has no matmul speed (machine.matmul_gflops), so ratios are not corrected: a slower "
            "machine looks like a slower variant"
        )
        return found
    if not 1 / MACHINE_CHANGE < in_matmuls < MACHINE_CHANGE:
        rows = "" if of_rows is None else f", and the rows {of_rows:.2f} times in the median"
        found.append(
            f"in matmuls the machine was {in_matmuls:.2f} times as slow in B as in A{rows}: "
            "ratios are corrected for it, which would hide a change that slowed it and every row alike"
        )
    elif of_rows is not None and not 1 / MACHINE_CHANGE < of_rows / in_matmuls < MACHINE_CHANGE:
        found.append(
            f"the rows took {of_rows:.2f} times as long in the median, matmuls {in_matmuls:.2f} "
            "times: either all rows changed, or the machine was busy while the matmuls did not run"
        )
    return found


def _differences(a: Report, b: Report) -> list[tuple[str, Any, Any]]:
    """Name, A and B of every setting, version and property of the machine that differs."""
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


def _hidden_by_noise(all_changes: list[dict[str, Change]], limit: float) -> list[str]:
    """Warn where the noise hides changes as small as the gate."""
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
        "use more --rounds or a longer --duration to see smaller changes"
    ]
