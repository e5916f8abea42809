"""Renders a report as Markdown, `report.md`."""

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
    """Render recommendation, warnings, table (latencies in ms), placement, machine and settings."""
    rows = report["rows"]
    out = [f"# Benchmark of {_escape(report['bundle'].get('name') or 'a bundle')}", ""]
    out += [_escape(recommend(report)["words"]), ""]
    told = warnings(report)
    if told:
        out += ["## Warnings", "", *(f"- {_escape(text)}" for text in told), ""]
    out += ["## Latency (ms), memory, size, masks", ""]
    out += _table([*HEADERS, "note"], [[*cells(row), note(row)] for row in rows], names_at_left=4)
    if any(row["status"] == "simulated" for row in rows):
        out += ["", _escape(SIMULATED_NOTE)]
    if input_note(report):
        out += ["", _escape(input_note(report))]
    out += ["", "## Placement of graph nodes, and fallbacks", ""]
    out += _table(
        ["row", "asked for", "ran on", "share of nodes", "nodes", "fallback"],
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
    out += [f"- {name}: {_escape(value)}" for name, value in machine_facts(report)]
    return "\n".join(out) + "\n"


def share(row: dict[str, object]) -> str:
    """The share of nodes on the device asked for, in per cent; or "not known"."""
    value = row.get("on_device")
    return f"{100 * value:.3g}%" if isinstance(value, int | float) else "not known"


def _table(headers: list[str], rows: list[list[str]], names_at_left: int) -> list[str]:
    rule = ["---" if i < names_at_left or h == "note" else "---:" for i, h in enumerate(headers)]
    lines = [headers, rule, *([_escape(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _escape(text: object) -> str:
    """Escape text so that Markdown shows it as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
