"""Renders a report as one self-contained page, `report.html`. Needs matplotlib (extra `bench`)."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

from .markdown import share
from .plots import backend_colours, need_matplotlib, phase_bars, scatter, size_bars
from .recommend import END_TO_END, below_gate, recommend
from .rows import (
    HEADERS,
    SIMULATED_NOTE,
    Report,
    Row,
    cells,
    fallback,
    input_note,
    iou,
    machine_facts,
    milliseconds,
    names,
    note,
    p50,
    placed,
    warnings,
)

# How many columns, on the left of the table of rows, hold names.
_NAMES = 4

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de;
  --panel: #f3f6f9; --warn: #fff4d6; --mark: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --ink: #e6e9ec; --soft: #a3adb8;
  --line: #39414a; --panel: #1d2228; --warn: #40350f; --mark: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p, ul, ol { margin: .5rem 0; } .soft { color: var(--soft); font-size: .9rem; }
.panel { background: var(--panel); border-left: 4px solid var(--mark); padding: .75rem 1rem; margin: 1rem 0; }
.warn { background: var(--warn); border-left: 4px solid #e69f00; padding: .5rem 1rem; margin: 1rem 0; }
.wide { overflow-x: auto; } .plots { columns: 2 24rem; column-gap: 2rem; }
.plots > section { break-inside: avoid; overflow: hidden; }
svg { display: block; width: 100%; max-width: 34rem; height: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  white-space: nowrap; } td.long, td[colspan] { white-space: normal; min-width: 16rem; }
thead th { white-space: normal; vertical-align: bottom; overflow-wrap: normal; }
td.number, th.number { text-align: right; } tbody th { font-weight: 600; position: sticky; left: 0;
  background: var(--back); }
tr.off td, tr.off th { color: var(--soft); } tr.best th { color: var(--mark); }
tr.fell td { background: var(--warn); }
ol.key { columns: 16rem; padding-left: 2rem; font-size: .9rem; } ol.key li { break-inside: avoid; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .3em; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; display: block; background: #fff; }
figcaption { font-size: .9rem; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem;
  font-size: .9rem; } dt { color: var(--soft); } dd { margin: 0; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; } }
"""


def render_html(report: Report, folder: Path) -> str:
    """Render the page, which loads nothing from elsewhere.

    Args:
        report: as in `report.json`.
        folder: of the report; the images that `worst` names are read from there.

    Raises:
        BackendError: matplotlib is not installed.
    """
    need_matplotlib()
    title = f"Benchmark of {report['bundle'].get('name') or 'a bundle'}"
    advice = recommend(report)
    machine = report["machine"]
    place = ", ".join(
        str(part)
        for part in (machine.get("cpu"), f"{machine.get('threads', '?')} threads", report.get("created"))
        if part
    )
    told = warnings(report)
    items = "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in told) + "</ul>"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(place)}</p>',
        _panel("panel", "recommendation", "Recommendation.", escape(advice["words"])),
        _panel("warn", "warnings", "Warnings", items) if told else "",
        '<div class="plots">',
        *_plots(report),
        "</div>",
        _full_table(report, advice),
        _placement(report),
        _worst(report, folder),
        '<h2 id="machine">Machine, bundle and settings</h2>',
        "<dl>"
        + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in machine_facts(report))
        + "</dl>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _panel(kind: str, identity: str, title: str, inside: str) -> str:
    return f'<div class="{kind}" id="{identity}"><strong>{title}</strong> {inside}</div>'


def _plots(report: Report) -> list[str]:
    points_plot, points = scatter(report)
    bars, shares = phase_bars(report)
    sizes = size_bars(report)
    out = []
    if points_plot:
        colours = backend_colours(report)
        listed = "".join(
            f'<li><span class="dot" style="background:{colours[row["backend"]]}"></span>{escape(name)}: '
            f"{milliseconds(p50(row, END_TO_END))} ms, IoU {iou(row['mean_iou'])}"
            + (f" <em>({escape(why)})</em>" if (why := below_gate(row)) else "")
            + "</li>"
            for name, row in points
        )
        backends = sorted({row["backend"] for _, row in points})
        legend = ", ".join(
            f'<span class="dot" style="background:{colours[b]}"></span>{escape(b)}' for b in backends
        )
        out.append(
            f"<section><h2>Latency against masks</h2>{points_plot}"
            '<p class="soft">Up and left is better; dashed: the Pareto front, beyond which no variant is '
            f"both faster and more exact. {legend}; circle FP32, square FP16, diamond BF16, "
            "triangle INT8.</p>"
            f'<ol class="key">{listed}</ol></section>'
        )
    else:
        out.append(
            "<section><h2>Latency against masks</h2><p>No row was measured on a device, so no speed is known."
            "</p></section>"
        )
    if bars:
        why = " Shown as shares, since the latencies differ widely." if shares else ""
        out.append(
            f"<section><h2>Where the time goes</h2>{bars}"
            f'<p class="soft">One click on a new image; the median of each phase.{why} '
            "Simulated rows have no speed, and are left out.</p></section>"
        )
    if sizes:
        out.append(f"<section><h2>Memory and size</h2>{sizes}</section>")
    return out


def _full_table(report: Report, advice: dict[str, Any]) -> str:
    best = (advice["id"], advice["backend"], advice["device"])
    lines = []
    for row in report["rows"]:
        kind = "off" if row["status"] in ("absent", "failed") else ""
        if (row["id"], row["backend"], row["device"]) == best:
            kind = "best"
        name, *rest = cells(row)
        said = f'<td class="long">{escape(note(row))}</td>'
        if row["status"] in ("absent", "failed") and row.get(END_TO_END) is None:
            # Dashes would push the reason off a small screen.
            rest, said = (
                rest[: _NAMES - 1],
                f'<td colspan="{len(HEADERS) - _NAMES + 1}">{escape(note(row))}</td>',
            )
        columns = "".join(f"<td{_class(i + 1)}>{escape(text)}</td>" for i, text in enumerate(rest))
        lines.append(f'<tr class="{kind}"><th scope="row">{escape(name)}</th>{columns}{said}</tr>')
    head = "".join(f'<th scope="col"{_class(i)}>{escape(h)}</th>' for i, h in enumerate((*HEADERS, "note")))
    simulated = any(row["status"] == "simulated" for row in report["rows"])
    return (
        '<h2 id="rows">Every row</h2><p class="soft">Latencies in ms.'
        + (f" {escape(SIMULATED_NOTE)}." if simulated else "")
        + (f" {escape(input_note(report))}." if input_note(report) else "")
        + f'</p><div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _class(column: int) -> str:
    return ' class="number"' if _NAMES <= column < len(HEADERS) else ""


def _placement(report: Report) -> str:
    lines = []
    for name, row in zip(names(report["rows"]), report["rows"], strict=True):
        if not row.get("placement"):
            continue
        fell = fallback(row)
        values = (str(row.get("asked") or "-"), row["device"], share(row), placed(row), fell or "none")
        columns = "".join(
            f"<td{' class=long' if i == 3 else ''}>{escape(v)}</td>" for i, v in enumerate(values)
        )
        lines.append(
            f'<tr class="{"fell" if fell else ""}"><th scope="row">{escape(name)}</th>{columns}</tr>'
        )
    if not lines:
        return ""
    head = "".join(
        f'<th scope="col">{h}</th>'
        for h in ("row", "asked for", "ran on", "share of nodes", "nodes", "fallback")
    )
    return (
        '<h2 id="placement">Placement</h2><div class="wide" tabindex="0"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _worst(report: Report, folder: Path) -> str:
    figures = [
        (float(case.get("iou") or 0), _figure(name, row, case, folder))
        for name, row in zip(names(report["rows"]), report["rows"], strict=True)
        for case in row.get("worst") or []
    ]
    if not figures:
        return ""
    figures.sort(key=lambda item: item[0])
    return (
        '<h2 id="worst">Worst cases</h2><p class="soft">Left to right: the reference\'s mask, the '
        "variant's, and where they differ. The worst come first.</p>" + "".join(text for _, text in figures)
    )


def _figure(name: str, row: Row, case: dict[str, Any], folder: Path) -> str:
    said = f"{name}, {case.get('prompt') or 'a prompt'}: IoU {iou(case.get('iou'))}"
    data = _png(folder, str(case.get("image") or ""))
    shown = (
        f'<img alt="reference, {escape(row["id"])}, difference" src="data:image/png;base64,{data}">'
        if data
        else "<p>(the image is not in the folder of the report)</p>"
    )
    return f"<figure><figcaption>{escape(said)}</figcaption>{shown}</figure>"


def _png(folder: Path, name: str) -> str:
    """A PNG in the folder of the report as base64; empty for anything else."""
    path = (folder / name).resolve()
    try:
        if not name or not path.is_relative_to(folder.resolve()) or not path.is_file():
            return ""
        data = path.read_bytes()
    except (OSError, ValueError):
        return ""
    return base64.b64encode(data).decode() if data.startswith(b"\x89PNG\r\n\x1a\n") else ""
