"""The goals of sam-edge, and whether reports reach them.

Figures are ratios of medians within one session. Where several variants may reach a goal, the best counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sam_edge.benchmarks.measure.interleave import ratio

Row = dict[str, Any]
# Rows of `tools.peers`.
PYTORCH, PLAIN, QUANTIZED = "segment_anything", "samexporter", "samexporter-quantized"
# Rows of `tools.goals.measure`.
PUBLISHED, PEAK = "published ONNX", "matrix products"


@dataclass(frozen=True)
class Goal:
    """A line of the table.

    Attributes:
        model: its name in the catalogue.
        what: a description.
        ours: the precision of the variants of sam-edge.
        beside: the id of the row to compare with; None for sam-edge's FP32 on the same backend.
        figure: computes the figure from our row and the other; None where it was not measured.
        limit: what the figure has to reach.
        at_most: whether the limit is a maximum; else it is a minimum.
    """

    model: str
    what: str
    ours: str
    beside: str | None
    figure: Callable[[Row, Row], float | None]
    limit: float
    at_most: bool = False


def faster(name: str) -> Callable[[Row, Row], float | None]:
    """How many times as fast sam-edge is, by the samples called `name`."""

    def figure(ours: Row, other: Row) -> float | None:
        return ratio(other[name], ours[name]) if ours.get(name) and other.get(name) else None

    return figure


def share(name: str) -> Callable[[Row, Row], float | None]:
    """The samples called `name` of sam-edge, as a share of the other row's."""

    def figure(ours: Row, other: Row) -> float | None:
        return ratio(ours[name], other[name]) if ours.get(name) and other.get(name) else None

    return figure


def closer(ours: Row, other: Row) -> float | None:
    """By how much the mean IoU of sam-edge with PyTorch's masks is higher."""
    both = "parity" in ours and "parity" in other
    return ours["parity"]["mean_iou"] - other["parity"]["mean_iou"] if both else None


ENCODE, CLICK, EVERYTHING = faster("encode_ms"), faster("click_ms"), faster("everything_ms")
DECODE, FIRST, MEMORY, OF_PEAK = (
    faster("decode_ms"),
    share("first_mask_ms"),
    share("peak_mb"),
    share("gflops"),
)
GOALS = (
    Goal("vit_b", "FP32, image to embedding, speedup over PyTorch", "fp32", PYTORCH, ENCODE, 2.2),
    Goal("vit_b", "FP32, image to embedding, speedup over samexporter", "fp32", PLAIN, ENCODE, 1.0),
    Goal("vit_b", "FP32, peak memory, share of samexporter's", "fp32", PLAIN, MEMORY, 0.25, True),
    Goal("vit_b", "FP32, encoder, share of matrix products' rate", "fp32", PEAK, OF_PEAK, 0.9),
    Goal("vit_b", "INT8, image to embedding, speedup over our FP32", "int8", None, ENCODE, 1.4),
    Goal("vit_b", "INT8, image to embedding, speedup over samexporter's", "int8", QUANTIZED, ENCODE, 1.15),
    Goal("vit_b", "INT8, mean IoU above samexporter's", "int8", QUANTIZED, closer, 0.0),
    Goal("mobile_sam", "FP32, image to embedding, speedup over PyTorch", "fp32", PYTORCH, ENCODE, 2.8),
    Goal("mobile_sam", "FP32, image to embedding, speedup over samexporter", "fp32", PLAIN, ENCODE, 1.25),
    Goal("mobile_sam", "FP32, peak memory, share of samexporter's", "fp32", PLAIN, MEMORY, 0.5, True),
    Goal("mobile_sam", "FP32, encoder, share of matrix products' rate", "fp32", PEAK, OF_PEAK, 0.8),
    Goal("mobile_sam", "INT8, image to embedding, speedup over our FP32", "int8", None, ENCODE, 1.2),
    Goal("mobile_sam", "FP32, a click to masks, speedup over samexporter", "fp32", PLAIN, CLICK, 1.6),
    Goal(
        "mobile_sam",
        "FP32, a click to logits, speedup over the published graph",
        "fp32",
        PUBLISHED,
        DECODE,
        1.6,
    ),
    Goal("mobile_sam", "FP32, everything, speedup over PyTorch", "fp32", PYTORCH, EVERYTHING, 5.0),
    Goal("sam_edge_tiny", "FP32, everything, speedup over PyTorch", "fp32", PYTORCH, EVERYTHING, 5.0),
    Goal(
        "sam_edge_tiny",
        "INT8, load to first mask from a cache, share of the published FP32",
        "int8",
        PUBLISHED,
        FIRST,
        0.5,
        True,
    ),
)


@dataclass(frozen=True)
class Reached:
    """A goal, the figure that was measured, and the variant that reached it."""

    goal: Goal
    variant: str
    figure: float

    @property
    def holds(self) -> bool:
        """Whether the goal is reached."""
        limit = self.goal.limit
        return self.figure <= limit if self.goal.at_most else self.figure >= limit


def reached(report: dict[str, Any], goals: Sequence[Goal] = GOALS) -> Iterator[Reached]:
    """Every goal of the report's model for which it has figures."""
    rows = report["rows"]
    for goal in goals:
        if goal.model != report["model"]["name"]:
            continue
        found = []
        for id, row in rows.items():
            if not (id.startswith("sam-edge ") and id.endswith(f"-{goal.ours}")):
                continue
            other = rows.get(goal.beside or f"{id.removesuffix(goal.ours)}fp32", {})
            figure = goal.figure(row, other)
            if figure is not None:
                found.append(Reached(goal, id.removeprefix("sam-edge "), figure))
        if found:
            yield (min if goal.at_most else max)(found, key=lambda one: one.figure)


def markdown(reports: Sequence[dict[str, Any]]) -> str:
    """Render the table, and the machines and versions of its figures."""
    lines = ["| model | what | goal | figure | by | reached |", "|---|---|---:|---:|---|---|"]
    for report in reports:
        for one in reached(report):
            sign = "at most" if one.goal.at_most else "at least"
            lines.append(
                f"| {one.goal.model} | {one.goal.what} | {sign} {one.goal.limit:g} | {one.figure:.3g} "
                f"| {one.variant} | {'yes' if one.holds else '**no**'} |"
            )
    for report in reports:
        machine, settings = report["machine"], report["settings"]
        versions: dict[str, str] = {}
        for row in report["rows"].values():
            versions |= row.get("versions", {})
        lines.append(
            f"\n{report['model']['name']}: {machine['cpu']}, {settings['threads']} threads, "
            f"{settings['repeats']} rounds, {report['created']}; "
            + ", ".join(f"{name} {value}" for name, value in sorted(versions.items()))
        )
    return "\n".join(lines)
