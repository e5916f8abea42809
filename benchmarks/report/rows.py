"""Reads a report, and makes the texts that the table, `report.md`, `report.html` and `compare` share.

A report is what `sam-edge benchmark` writes as `report.json`; its schema is `report.schema.json`.
"""

from __future__ import annotations

import importlib.resources
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from sam_edge.bundle.manifest import ResizedFrom, describe_resize_accuracy
from sam_edge.bundle.schema import validate
from sam_edge.errors import SamEdgeError

Report = dict[str, Any]
Row = dict[str, Any]

SCHEMA = 1
REPORT_FILE = "report.json"
# The phases of one click, in their order, with their labels.
PHASES = {
    "preprocess_ms": "preprocess",
    "encoder_ms": "encoder",
    "decoder_ms": "decoder",
    "postprocess_ms": "postprocess",
}
SIMULATED_MARK = "*"
SIMULATED_NOTE = "* simulated: the masks are those of the chip; speed and memory are not"
# Warn where the last fifth of a run took longer than its first by more than the one factor, or where the
# machine's speed varied between rounds by more than the other.
DRIFT_LIMIT = 1.10
VARIATION_LIMIT = 1.20

HEADERS = (
    "variant",
    "backend",
    "device",
    "status",
    "load ms",
    "first ms",
    "encoder p50",
    "decoder p50",
    "end to end p50",
    "p90",
    "peak MB",
    "size MB",
    "mean IoU",
    "min IoU",
    "boundary IoU",
)


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of a report."""
    text = importlib.resources.files(__package__).joinpath("report.schema.json").read_text("utf-8")
    return dict(json.loads(text))


def read_report(path: Path) -> Report:
    """Read a report from its file, or from the folder that `sam-edge benchmark --out` made.

    Raises:
        SamEdgeError: there is no such file, or it is not a report of this schema.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    expected = "expected a report.json written by `sam-edge benchmark --out DIR`"
    try:
        report = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise SamEdgeError(f"cannot read {file}: {error.strerror}; {expected}") from error
    except (ValueError, RecursionError) as error:
        raise SamEdgeError(f"{file} is not JSON ({error}); {expected}") from error
    try:
        validate(report, schema(), where="report")
    except ValueError as error:
        raise SamEdgeError(f"{file} is not a benchmark report: {error}; {expected}") from error
    return dict(report)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number in JSON")


def key(row: Row) -> tuple[str, str, str]:
    """What identifies a row: variant, backend, device."""
    return row["id"], row["backend"], row["device"]


def names(rows: list[Row]) -> list[str]:
    """The shortest unique name of each row: `onnx-int8`, or with backend and device added."""
    full = [f"{row['id']} {row['backend']} {row['device']}" for row in rows]
    for short in (
        [row["id"] for row in rows],
        [f"{row['id']} {row['device']}" for row in rows],
        [f"{row['id']} {row['backend']}" for row in rows],
    ):
        count = Counter(short)
        full = [s if count[s] == 1 and len(s) < len(f) else f for s, f in zip(short, full, strict=True)]
    return full


def p50(row: Row, name: str) -> float | None:
    """The median of one of a row's latencies, in ms; None where it was not measured."""
    stats = row.get(name)
    return None if stats is None else stats["p50"]


def rounds(stats: dict[str, Any] | None) -> list[float]:
    """The medians of the rounds that have one, positive."""
    return [float(x) for x in (stats or {}).get("rounds") or [] if x is not None and x > 0]


def number(value: float | None, digits: int) -> str:
    """`value` with this many decimals, or "-"."""
    return "-" if value is None else f"{value:.{digits}f}"


def milliseconds(value: float | None) -> str:
    """A latency with three or more significant digits, or "-"."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def iou(value: float | None) -> str:
    """An IoU with four decimals, rounded down: 0.99996 is not 1."""
    return "-" if value is None else f"{int(value * 10_000 + 1e-9) / 10_000:.4f}"


def cells(row: Row) -> list[str]:
    """The cells under `HEADERS`; simulated latencies and memory end with `SIMULATED_MARK`."""
    mark = SIMULATED_MARK if row["status"] == "simulated" else ""
    first = [p50(row, name) for name in ("load_ms", "first_ms", "encoder_ms", "decoder_ms", "end_to_end_ms")]
    timed = [milliseconds(v) for v in [*first, (row.get("end_to_end_ms") or {}).get("p90")]]
    timed.append(number(row.get("peak_rss_mb"), 0))
    size = row.get("bytes")
    return [
        row["id"],
        row["backend"],
        row["device"],
        row["status"],
        *(text if text == "-" else text + mark for text in timed),
        number(None if size is None else size / 1e6, 1),
        iou(row.get("mean_iou")),
        iou(row.get("min_iou")),
        iou((row.get("parity") or {}).get("boundary_iou")),
    ]


def fallback(row: Row) -> str:
    """Describe what ran on another device than asked for; empty where nothing did or it is not known."""
    asked, device, share = row.get("asked"), row["device"], row.get("on_device")
    if asked in ("cpu", "gpu", "npu") and device in ("cpu", "gpu", "npu") and asked != device:
        return f"asked for {asked}, ran on {device}: {placed(row)}"
    if share is not None and share < 1:
        return f"only {100 * share:.3g}% of the nodes ran on {device}: {placed(row)}"
    return ""


def placed(row: Row) -> str:
    """`encoder: 150 CPUExecutionProvider; decoder: ...`."""
    placement = row.get("placement") or {}
    graphs = [
        f"{graph}: " + (", ".join(f"{count} {where}" for where, count in nodes.items()) or "nothing")
        if isinstance(nodes, dict)
        else f"{graph}: not known"
        for graph, nodes in placement.items()
    ]
    return "; ".join(graphs) or "placement not known"


def note(row: Row) -> str:
    """Why a row is absent, failed or simulated, and what ran on another device."""
    return "; ".join(text for text in (row.get("reason") or "", fallback(row)) if text)


def input_note(report: Report) -> str:
    """Describe what the input size costs, where it is not the model's own; else empty."""
    resized = report["bundle"].get("resized_from")
    if resized is None:
        return ""
    size = _size(report["bundle"]["input_size"])
    return (
        f"IoU is with the reference at the bundle's input size, {size}; what that size costs "
        f"{describe_resize_accuracy(ResizedFrom.from_json(resized))}"
    )


def warnings(report: Report) -> list[str]:
    """What a reader must know before trusting the figures."""
    found = []
    if report.get("partial"):
        found.append("the run was interrupted: this report is partial")
    rows = report["rows"]
    for name, row in zip(names(rows), rows, strict=True):
        drift = row.get("drift")
        if drift is not None and not 1 / DRIFT_LIMIT < drift < DRIFT_LIMIT and row["status"] == "measured":
            found.append(
                f"{name}: the last fifth of the run took {drift:.2f} times as long as the first "
                "(heat, or other work on the machine)"
            )
        if fallback(row):
            found.append(f"{name}: {fallback(row)}")
    speeds = rounds(report["machine"].get("matmul_gflops"))
    if speeds and max(speeds) > VARIATION_LIMIT * min(speeds):
        found.append(
            f"the speed of the machine itself varied by a factor of {max(speeds) / min(speeds):.2f} between "
            f"rounds ({min(speeds):.0f} to {max(speeds):.0f} GFLOP/s of matrix products): "
            "small differences are noise"
        )
    return found


def machine_facts(report: Report) -> list[tuple[str, str]]:
    """Names and values that describe the machine, the bundle and the settings."""
    machine, bundle, settings = report["machine"], report["bundle"], report.get("settings") or {}
    packages = ", ".join(f"{name} {version}" for name, version in (machine.get("packages") or {}).items())
    drivers = ", ".join(f"{name} {version}" for name, version in (machine.get("drivers") or {}).items())
    gflops = (machine.get("matmul_gflops") or {}).get("p50")
    memory = machine.get("memory_mb")
    facts = [
        ("CPU", machine.get("cpu")),
        ("instructions", " ".join(map(str, machine.get("isa") or []))),
        ("cores, threads used", f"{machine.get('cores', '?')}, {machine.get('threads', '?')}"),
        ("governor", machine.get("governor")),
        ("memory", None if memory is None else f"{memory:.0f} MB"),
        ("matrix products, FP32", None if gflops is None else f"{gflops:.0f} GFLOP/s"),
        ("system", machine.get("os")),
        ("Python", machine.get("python")),
        ("drivers", drivers),
        ("packages", packages),
        ("revision", machine.get("revision")),
        ("bundle", bundle.get("path")),
        ("model", " ".join(str(bundle[name]) for name in ("family", "name") if bundle.get(name))),
        ("checkpoint, sha256", bundle.get("checkpoint_sha256")),
        ("input", _size(bundle.get("input_size"))),
        ("model's own input", _size((bundle.get("resized_from") or {}).get("size"))),
        ("image, height x width", _size(settings.get("image_size"))),
        (
            "time for each row",
            None if settings.get("duration_s") is None else f"{settings['duration_s']:g} s",
        ),
        (
            "rounds, seed",
            f"{settings['rounds']}, {settings.get('seed', '?')}" if "rounds" in settings else None,
        ),
        ("parity from", settings.get("parity")),
        ("created", report.get("created")),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _size(size: Any) -> str | None:
    return " x ".join(map(str, size)) if isinstance(size, list) else None
