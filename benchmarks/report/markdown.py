"""The report as `report.md`."""

from __future__ import annotations

import re

from .recommend import recommend
from .rows import (
    HEADERS,
    SIMULATED_NOTE,
    Report,
    cells,
    fallback,
    input_note,
    machine_facts,
    names,
    note,
    placed,
    warnings,
)


def render_markdown(report: Report) -> str:
    """Recommendation, warnings, table (latencies in ms), placement, machine and settings, as Markdown."""
    rows = report["rows"]
    out = [f"# Benchmark of {_plain(report['bundle'].get('name') or 'a bundle')}", ""]
    out += [_plain(recommend(report)["words"]), ""]
    told = warnings(report)
    if told:
        out += ["## Before you believe it", "", *(f"- {_plain(text)}" for text in told), ""]
    out += ["## Latency (ms), memory, size, masks", ""]
    out += _table([*HEADERS, "note"], [[*cells(row), note(row)] for row in rows], names_at_left=4)
    if any(row["status"] == "simulated" for row in rows):
        out += ["", _plain(SIMULATED_NOTE)]
    if input_note(report):
        out += ["", _plain(input_note(report))]
    out += ["", "## Placement: nodes, and what ran elsewhere than asked for", ""]
    out += _table(
        ["row", "asked", "ran on", "share on it", "nodes", "fallback"],
        [
            [
                name,
                str(row.get("asked") or "-"),
                row["device"],
                share(row),
                placed(row),
                fallback(row) or "none",
            ]
            for name, row in zip(names(rows), rows, strict=True)
            if row.get("placement")
        ],
        names_at_left=6,
    )
    out += ["", "## Machine, bundle and settings", ""]
    out += [f"- {name}: {_plain(value)}" for name, value in machine_facts(report)]
    return "\n".join(out) + "\n"


def share(row: dict[str, object]) -> str:
    """The share of the nodes on the device asked for, in per cent; "not known" where it is not."""
    value = row.get("on_device")
    return f"{100 * value:.3g}%" if isinstance(value, int | float) else "not known"


def _table(headers: list[str], rows: list[list[str]], names_at_left: int) -> list[str]:
    rule = ["---" if i < names_at_left or h == "note" else "---:" for i, h in enumerate(headers)]
    lines = [headers, rule, *([_plain(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _plain(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
