"""Draws the plots of `report.html` as inline SVG elements. Needs matplotlib (extra `bench`)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from sam_edge.axes import FORMATS, PRECISIONS
from sam_edge.errors import BackendError
from sam_edge.system.install import install_command

from .recommend import END_TO_END, pareto_front
from .rows import PHASES, Report, Row, milliseconds, names, p50, rounds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its two palest colours.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
# Of a precision that nobody registered.
_OTHER_MARKER = "P"
# Each phase has the same colour in every report.
PHASE_COLOURS = dict(zip(PHASES, ("#56b4e9", "#0072b2", "#e69f00", "#009e73"), strict=True))
# The ratio of largest to smallest value from which an axis is logarithmic.
LOG_FROM = 8.0
# A placeholder for the page's text colour; no other element has this colour.
_INK = "#010203"
# In inches of 72 units: text stays readable at the width of a phone.
WIDTH = 4.8
_SIZE = 10.5

Point = tuple[float, float]


def need_matplotlib() -> None:
    """Raise `BackendError`, which names the extra, where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise BackendError(
            f"report.html needs matplotlib, which is not installed; {install_command('bench')}"
        ) from error


def timed_rows(report: Report) -> list[tuple[str, Row]]:
    """Names and rows that were measured on a device; simulated rows have no speed."""
    named = zip(names(report["rows"]), report["rows"], strict=True)
    return [
        (name, row) for name, row in named if row["status"] == "measured" and (p50(row, END_TO_END) or 0) > 0
    ]


def scatter(report: Report) -> tuple[str, list[tuple[str, Row]]]:
    """Draw end to end latency against mean IoU, with the Pareto front.

    Returns:
        The SVG, and the names and rows of its points in the order of their numbers, fastest first.
    """
    points = [(name, row) for name, row in timed_rows(report) if row.get("mean_iou") is not None]
    points.sort(key=lambda point: p50(point[1], END_TO_END) or 0)
    if not points:
        return "", []
    latency = [p50(row, END_TO_END) or 0.0 for _, row in points]
    quality = [float(row["mean_iou"]) for _, row in points]
    colours = backend_colours(report)
    figure, (axes,) = _figure(4.0)
    front = pareto_front(latency, quality)
    axes.step(
        [latency[i] for i in front], [quality[i] for i in front], where="post", color=_INK, linewidth=1,
        linestyle=(0, (4, 3)), zorder=1,
    )  # fmt: skip
    for (_, row), x, y in zip(points, latency, quality, strict=True):
        colour = colours[row["backend"]]
        medians = rounds(row[END_TO_END]) or [x]
        axes.plot([min(medians), max(medians)], [y, y], color=colour, linewidth=1.2, alpha=0.6, zorder=2)
        axes.plot(
            x, y, marker=_marker(row), color=colour, markersize=8,
            markeredgecolor=_INK, markeredgewidth=0.6, linestyle="none", zorder=3,
        )  # fmt: skip
    low, high = min(quality), max(quality)
    margin = max(0.08 * (high - low), 0.002)
    axes.set_ylim(low - 2 * margin, high + 2 * margin)
    ends = [x for _, row in points for x in (rounds(row[END_TO_END]) or [p50(row, END_TO_END) or 1.0])]
    _latency_axis(axes, min(ends), max(ends))
    axes.set_xlabel("end to end, ms (median; line: range of the rounds)")
    axes.set_ylabel("mean IoU with the reference")
    axes.grid(alpha=0.25, color=_INK, linewidth=0.5)
    _label(figure, axes, list(zip(latency, quality, strict=True)))
    return _svg(figure, "End to end latency against mean IoU, with the Pareto front"), points


def phase_bars(report: Report) -> tuple[str, bool]:
    """Draw how the time of one click divides into phases, for each measured row, slowest last.

    Returns:
        The SVG, and whether bars are shares of the total, as they are where latencies differ widely.
    """
    rows = sorted(timed_rows(report), key=lambda named: p50(named[1], END_TO_END) or 0)
    parts = [{phase: p50(row, phase) or 0.0 for phase in PHASES} for _, row in rows]
    rows = [named for named, part in zip(rows, parts, strict=True) if sum(part.values()) > 0]
    parts = [part for part in parts if sum(part.values()) > 0]
    if not rows:
        return "", False
    totals = [sum(part.values()) for part in parts]
    shares = max(totals) > LOG_FROM * min(totals)
    figure, (axes,) = _figure(1.5 + 0.32 * len(rows))
    places = list(range(len(rows)))[::-1]
    start = [0.0] * len(rows)
    for phase, label in PHASES.items():
        scale = [100 / total if shares else 1.0 for total in totals]
        width = [part[phase] * s for part, s in zip(parts, scale, strict=True)]
        axes.barh(places, width, left=start, height=0.7, color=PHASE_COLOURS[phase], label=label,
                  edgecolor=_INK, linewidth=0.4)  # fmt: skip
        start = [a + b for a, b in zip(start, width, strict=True)]
    limit = max(start)
    for place, end, (_, row) in zip(places, start, rows, strict=True):
        axes.text(end + 0.015 * limit, place, milliseconds(p50(row, END_TO_END)), va="center", color=_INK)
    axes.set_xlim(0, 1.17 * limit)
    axes.set_yticks(places, [name for name, _ in rows], parse_math=False)
    if shares:
        axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_xlabel(
        "share of the time, %; number: end to end, ms" if shares else "ms (medians); number: end to end, ms"
    )
    figure.legend(
        loc="outside upper center",
        ncols=4,
        frameon=False,
        labelcolor=_INK,
        columnspacing=1.2,
        handlelength=1.2,
    )
    return _svg(figure, "Where the time of one click goes: preprocess, encoder, decoder, postprocess"), shares


def size_bars(report: Report) -> str:
    """Draw the peak memory of each row's process, where it ran on a device, and the size of its files."""
    named = list(zip(names(report["rows"]), report["rows"], strict=True))
    memory = {
        name: row["peak_rss_mb"]
        for name, row in named
        if row["status"] == "measured" and row.get("peak_rss_mb")
    }
    # A variant has the same size on every device.
    size = {row["id"]: row["bytes"] / 1e6 for _, row in named if row.get("bytes")}
    panels = [(values, label, colour) for values, label, colour in (
        (memory, "peak memory of the process, MB", COLOURS[0]),
        (size, "files, MB", COLOURS[2]),
    ) if values]  # fmt: skip
    if not panels:
        return ""
    lengths = [len(values) for values, _, _ in panels]
    figure, all_axes = _figure(0.6 * len(panels) + 0.3 * sum(lengths), [length + 1.0 for length in lengths])
    for axes, (values, label, colour) in zip(all_axes, panels, strict=True):
        ordered = sorted(values.items(), key=lambda item: item[1])
        places = list(range(len(ordered)))[::-1]
        log = ordered[-1][1] > LOG_FROM * ordered[0][1]
        limit = ordered[-1][1]
        axes.barh(places, [v for _, v in ordered], height=0.7, color=colour, edgecolor=_INK, linewidth=0.4)
        for place, (_, value) in zip(places, ordered, strict=True):
            text = f"{value:.0f}" if value >= 100 else f"{value:.1f}"
            axes.annotate(text, (value, place), (3, 0), textcoords="offset points", va="center", color=_INK)
        if log:
            axes.set_xscale("log")
            axes.set_xlim(ordered[0][1] / 2, 2 * limit)
            _plain_ticks(axes, ordered[0][1] / 2, 2 * limit)
        else:
            axes.set_xlim(0, 1.15 * limit)
        axes.set_yticks(places, [name for name, _ in ordered], parse_math=False)
        axes.set_xlabel(label + (" (log scale)" if log else ""))
    return _svg(figure, "Peak memory and size of the files")


def backend_colours(report: Report) -> dict[str, str]:
    """A colour for each backend: that of the format it reads, in every report the same, or one left over."""
    formats = {row["backend"]: str(row.get("format")) for row in report["rows"]}
    found: dict[str, str] = {}
    for backend in sorted(formats):
        colour = FORMATS.get(formats[backend]).colour if formats[backend] in FORMATS else None
        if colour is not None and colour not in found.values():
            found[backend] = colour
    reserved = {one.colour for one in FORMATS}
    free = [colour for colour in COLOURS if colour not in reserved]
    others = [backend for backend in sorted(formats) if backend not in found]
    return found | {backend: free[i % len(free)] for i, backend in enumerate(others)}


def _marker(row: Row) -> str:
    precision = str(row.get("precision"))
    return PRECISIONS.get(precision).marker if precision in PRECISIONS else _OTHER_MARKER


def place_labels(
    points: Sequence[Point], size: Point, box: tuple[float, float, float, float], radius: float
) -> list[Point]:
    """Place labels near their points, so that they cover no point and no other label.

    Args:
        points: (x, y) in any unit of length.
        size: (width, height) of every label.
        box: (left, bottom, right, top) that labels must stay within.
        radius: of a point's marker.

    Returns:
        The centres of the labels, in the order of the points; where no place is free, the one that overlaps
        least.
    """
    width, height = size
    placed: list[Point] = []
    for x, y in points:
        best: tuple[float, Point] | None = None
        for ring in range(6):
            for step in range(16):
                angle = math.pi / 4 + step * math.pi / 8
                reach_x = radius + width / 2 + 1 + ring * width
                reach_y = radius + height / 2 + 1 + ring * height
                centre = (x + reach_x * math.cos(angle), y + reach_y * math.sin(angle))
                cost = _overlaps(centre, size, points, placed, box, radius)
                if best is None or cost < best[0]:
                    best = (cost, centre)
                if not cost:
                    break
            if best is not None and not best[0]:
                break
        assert best is not None
        placed.append(best[1])
    return placed


def _overlaps(
    centre: Point,
    size: Point,
    points: Sequence[Point],
    placed: Sequence[Point],
    box: tuple[float, float, float, float],
    radius: float,
) -> float:
    x, y = centre
    half_width, half_height = size[0] / 2, size[1] / 2
    left, bottom, right, top = box
    outside = (
        x - half_width < left or x + half_width > right or y - half_height < bottom or y + half_height > top
    )
    over_points = sum(
        abs(x - a) < half_width + radius and abs(y - b) < half_height + radius for a, b in points
    )
    over_labels = sum(abs(x - a) < size[0] and abs(y - b) < size[1] for a, b in placed)
    return 3.0 * outside + over_points + 2 * over_labels


def _label(figure: Figure, axes: Axes, points: list[Point]) -> None:
    """Write each point's number beside it, with a line where the number had to go far."""
    figure.canvas.draw()
    shown = [tuple(map(float, place)) for place in axes.transData.transform(points)]
    bounds = axes.get_window_extent()
    unit = figure.dpi / 72
    size = ((6 if len(points) < 10 else 12) * unit, _SIZE * unit)
    box = (bounds.x0, bounds.y0, bounds.x1, bounds.y1)
    centres = place_labels([(x, y) for x, y in shown], size, box, 4.5 * unit)
    for i, ((x, y), (a, b)) in enumerate(zip(shown, centres, strict=True)):
        offset = ((a - x) / unit, (b - y) / unit)
        far = math.hypot(*offset) > 22
        axes.annotate(
            str(i + 1), points[i], offset, textcoords="offset points", ha="center", va="center", color=_INK,
            arrowprops={"arrowstyle": "-", "color": _INK, "linewidth": 0.5} if far else None, zorder=4,
        )  # fmt: skip


def _latency_axis(axes: Axes, low: float, high: float) -> None:
    if high > LOG_FROM * low:
        axes.set_xscale("log")
        low, high = low / 1.3, high * 1.3
        axes.set_xlim(low, high)
        _plain_ticks(axes, low, high)
    else:
        axes.set_xlim(
            max(0.0, low - 0.15 * (high - low) - 0.02 * high), high + 0.15 * (high - low) + 0.02 * high
        )


def _plain_ticks(axes: Axes, low: float, high: float) -> None:
    """Label a logarithmic axis with 20, 50, 100 instead of powers of ten, at most seven of them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**d for d in decades for step in steps if low <= step * 10.0**d <= high]
        if len(ticks) <= 7:
            break
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _figure(height: float, ratios: Sequence[float] = (1.0,)) -> tuple[Figure, list[Axes]]:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(len(ratios), 1, squeeze=False, height_ratios=list(ratios))
    for axes in grid[:, 0]:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid[:, 0])


def _style() -> dict[str, Any]:
    coloured = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(coloured, _INK),
        "font.family": "DejaVu Sans",
        "font.size": _SIZE,
        "axes.labelsize": _SIZE,
        "xtick.labelsize": _SIZE,
        "ytick.labelsize": _SIZE,
        "legend.fontsize": _SIZE,
        "axes.facecolor": "none",
        # Text as paths looks the same everywhere, and no name can become markup.
        "svg.fonttype": "path",
        "svg.hashsalt": "sam-edge",
    }


def _svg(figure: Figure, description: str) -> str:
    """Render an `<svg>` element without a size, so that the page scales it, in the page's text colour."""
    import matplotlib

    out = StringIO()
    with matplotlib.rc_context(_style()):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    text = text[text.index("<svg") :]
    # Ids and references get the plot's own prefix: within a page they must differ.
    mark = re.sub(r"\W+", "-", description.lower())[:12]
    text = re.sub(r'(\bid="|#)(?=[A-Za-z_][\w-]*["\)])', rf"\g<1>{mark}-", text)
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    opening = f'<svg {box.group()} role="img" aria-label="{description}">'
    return (opening + rest.replace(_INK, "currentColor").replace("xlink:href", "href")).strip()
