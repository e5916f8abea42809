"""Renders a report as a table for the terminal."""

from __future__ import annotations

from .rows import HEADERS, SIMULATED_NOTE, Report, cells, input_note, note, warnings

# How many columns, on the left, hold names; the others hold numbers.
_NAMES = 4


def render_table(report: Report) -> str:
    """Render aligned plain text with a line for each row; latencies in ms, notes at the end of the line.

    A row that was not measured has its reason after its status; simulated latencies and memory are marked.
    """
    rows = report["rows"]
    lines = [list(HEADERS), *(cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    out = []
    for line, row in zip(lines, [None, *rows], strict=True):
        texts = [
            t.ljust(w) if i < _NAMES else t.rjust(w)
            for i, (t, w) in enumerate(zip(line, widths, strict=True))
        ]
        said = note(row) if row is not None else ""
        if row is not None and row["status"] in ("absent", "failed") and row.get("end_to_end_ms") is None:
            # Dashes would push the reason off the screen.
            out.append("  ".join(texts[:_NAMES]) + f"  {said}")
        else:
            out.append("  ".join(texts) + (f"  {said}" if said else ""))
    if any(row["status"] == "simulated" for row in rows):
        out += ["", SIMULATED_NOTE]
    if input_note(report):
        out += ["", input_note(report)]
    out += [f"warning: {text}" for text in warnings(report)]
    return "\n".join(line.rstrip() for line in out) + "\n"
