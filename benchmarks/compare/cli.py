"""`sam-edge compare`: compares two reports of `sam-edge benchmark`; a gate for CI."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from sam_edge.errors import SamEdgeError

from ..report.rows import milliseconds, read_report
from .changes import GATED
from .compare import compare, phase_label


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("a", type=Path, metavar="A", help="report.json, or its folder: before the change")
    parser.add_argument("b", type=Path, metavar="B", help="the same, after the change")
    parser.add_argument(
        "--fail-slower",
        metavar="SHARE",
        help="exit with 1 where the encoder, decoder or end to end latency of a row grew by more than this, "
        "beyond the noise: 10%% or 0.1",
    )
    parser.add_argument(
        "--fail-iou",
        metavar="LOSS",
        help="exit with 1 where the mean or minimum IoU of a row fell by more than this: 0.01 or 1%%",
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run(args: argparse.Namespace) -> int:
    """Return 0, or 1 where a gate failed."""
    slower = None if args.fail_slower is None else share(args.fail_slower, "--fail-slower")
    iou = None if args.fail_iou is None else share(args.fail_iou, "--fail-iou")
    found = compare(read_report(args.a), read_report(args.b), slower, iou)
    found = {"a": str(args.a), "b": str(args.b), **found}
    print(
        json.dumps(found, indent=2) if args.json else render_comparison(found), end="\n" if args.json else ""
    )
    return 0 if found["passed"] else 1


def share(text: str, option: str) -> float:
    """Parse a share: "10%" and "0.1" are 0.1.

    Raises:
        SamEdgeError: it is not a number, negative, or above 1 without a percent sign.
    """
    number, percent = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise SamEdgeError(f"{option} {text} is not a share; write 10% or 0.1")
    if value > 1 and not percent:
        raise SamEdgeError(f"{option} {text} would be {100 * value:g}%; write {text}% or {value / 100:g}")
    return value


def render_comparison(found: dict[str, Any]) -> str:
    """Render the answer of `compare`: a line for each phase of each row, then what only one report has."""
    lines = [f"A {found['a']}", f"B {found['b']}", ""]
    header = ["row", "phase", "A ms", "B ms", "B/A corrected", "interval", "verdict"]
    table = [header]
    for row in found["rows"]:
        for phase, change in row["phases"].items():
            interval = f"{change['low']:.2f} to {change['high']:.2f}"
            if phase in GATED or change["verdict"] != "same":
                times = [milliseconds(change["a_ms"]), milliseconds(change["b_ms"])]
                ratio = f"{change['ratio']:.2f}"
                table.append([row["name"], phase_label(phase), *times, ratio, interval, change["verdict"]])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table if len(table) > 1 else []:
        cells = [
            text.rjust(width) if 2 <= i <= 5 else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines += _other_changes(found["rows"])
    lines += [f"only in {which}: {' '.join(key)}" for which in "AB" for key in found[f"only_{which.lower()}"]]
    lines += [f"warning: {text}" for text in found["warnings"]]
    lines += [f"FAILED: {text}" for text in found["failures"]]
    return "\n".join(lines) + "\n"


def _other_changes(rows: list[dict[str, Any]]) -> list[str]:
    """Lines for status, masks, size and memory where they differ."""
    lines = []
    for row in rows:
        (old, new), (_, why) = row["status"], row["reason"]
        if old != new:
            lines.append(f"{row['name']}: {old} in A, {new} in B" + (f": {why}" if why else ""))
        for field, what, scale, digits in (
            ("mean_iou", "mean IoU", 1.0, 4),
            ("min_iou", "min IoU", 1.0, 4),
            ("bytes", "size in MB", 1e6, 1),
            ("peak_rss_mb", "peak memory in MB", 1.0, 0),
        ):
            before, after = (
                "not measured" if value is None else f"{value / scale:.{digits}f}" for value in row[field]
            )
            # Memory differs a little from run to run; the others do not.
            near = (
                field == "peak_rss_mb" and None not in row[field] and math.isclose(*row[field], rel_tol=0.05)
            )
            if before != after and not near:
                lines.append(f"{row['name']}: {what} {before} in A, {after} in B")
    return ["", *lines] if lines else []
