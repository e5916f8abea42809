"""Renders the report of a session as a table."""

from __future__ import annotations

from typing import Any

from sam_edge.benchmarks.measure.interleave import median

_COLUMNS = (
    "",
    "image to embedding, ms",
    "click to masks, ms",
    "everything, s (masks)",
    "peak MB",
    "import, ms",
    "load, ms",
    "installed / imported MB",
    "mean / min IoU",
)


def markdown(report: dict[str, Any]) -> str:
    """Render the rows as Markdown; "(x 2.0)" means twice as fast as the first row."""
    rows = report["rows"]
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for row in rows.values():
        cells = [
            row["id"],
            _time(row, rows, "encode_ms"),
            _time(row, rows, "click_ms"),
            _time(row, rows, "everything_ms", 1e-3) + _count(row),
            f"{median(row['peak_mb']):.0f}" if "peak_mb" in row else "",
            f"{median(row['import_ms']):.0f}" if "import_ms" in row else "",
            f"{median(row['load_ms']):.0f}" if "load_ms" in row else "",
            _sizes(row, report),
            _parity(row),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\n{name}: {reason}." for name, reason in report["absent"].items()]
    return "\n".join(lines)


def _time(row: dict[str, Any], rows: dict[str, Any], name: str, scale: float = 1.0) -> str:
    if not row.get(name):
        return ""
    value = median(row[name])
    first = next(iter(rows.values()))
    ratio = f" (x {median(first[name]) / value:.2g})" if first is not row and first.get(name) else ""
    return f"{value * scale:.3g}{ratio}" if value * scale < 100 else f"{value * scale:.0f}{ratio}"


def _count(row: dict[str, Any]) -> str:
    return f", {row['everything_count']}" if "everything_count" in row else ""


def _sizes(row: dict[str, Any], report: dict[str, Any]) -> str:
    installed = report["installed_mb"].get(row["environment"])
    if installed is None or "loaded_mb" not in row:
        return ""
    return f"{sum(installed.values()):.0f} / {sum(row['loaded_mb'].values()):.0f}"


def _parity(row: dict[str, Any]) -> str:
    found = row.get("parity")
    return f"{found['mean_iou']:.4f} / {found['min_iou']:.4f}" if found else ""
