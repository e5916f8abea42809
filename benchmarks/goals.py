"""What sam-edge aims at beside its peers, and what was reached: one table from the reports of `peers`.

    python -m sam_edge.benchmarks.peers BUNDLE ... --out FILE.json
    python -m sam_edge.benchmarks.goals FILE.json [FILE.json ...]

A report says which model it is of; targets of models without a report are left out. Figures are ratios of
medians within one session. Of several variants that may reach a target, the best one counts, and is named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_edge.errors import SamEdgeError

from .peers.table import median

Row = dict[str, Any]
PYTORCH, PLAIN, QUANTISED = "segment_anything", "samexporter", "samexporter-quantized"


@dataclass(frozen=True)
class Target:
    """One line of the table.

    Attributes:
        model: as the catalogue calls it.
        what: in words.
        ours: the precision of sam-edge's variants.
        beside: the peer's id; None for our own FP32 on the same backend.
        figure: of our row and the other's; None where it was not measured.
        limit: what the figure has to reach.
        at_most: whether the limit is one from above.
    """

    model: str
    what: str
    ours: str
    beside: str | None
    figure: Callable[[Row, Row], float | None]
    limit: float
    at_most: bool = False


def faster(name: str) -> Callable[[Row, Row], float | None]:
    """How many times as fast we are, by the samples called `name`."""

    def figure(ours: Row, other: Row) -> float | None:
        return median(other[name]) / median(ours[name]) if ours.get(name) and other.get(name) else None

    return figure


def memory(ours: Row, other: Row) -> float | None:
    """Our peak memory as a share of the other's."""
    both = ours.get("peak_mb") and other.get("peak_mb")
    return median(ours["peak_mb"]) / median(other["peak_mb"]) if both else None


def closer(ours: Row, other: Row) -> float | None:
    """By how much our mean IoU with PyTorch's masks is higher."""
    both = "parity" in ours and "parity" in other
    return ours["parity"]["mean_iou"] - other["parity"]["mean_iou"] if both else None


ENCODE, CLICK, EVERYTHING = faster("encode_ms"), faster("click_ms"), faster("everything_ms")
TARGETS = (
    Target("vit_b", "FP32, image to embedding, times as fast as PyTorch", "fp32", PYTORCH, ENCODE, 2.2),
    Target("vit_b", "FP32, image to embedding, as samexporter", "fp32", PLAIN, ENCODE, 1.0),
    Target("vit_b", "FP32, peak memory, share of samexporter's", "fp32", PLAIN, memory, 0.25, True),
    Target("vit_b", "INT8, image to embedding, as our FP32", "int8", None, ENCODE, 1.4),
    Target("vit_b", "INT8, image to embedding, as samexporter's", "int8", QUANTISED, ENCODE, 1.15),
    Target("vit_b", "INT8, mean IoU above samexporter's", "int8", QUANTISED, closer, 0.0),
    Target("mobile_sam", "FP32, image to embedding, times as fast as PyTorch", "fp32", PYTORCH, ENCODE, 2.8),
    Target("mobile_sam", "FP32, image to embedding, as samexporter", "fp32", PLAIN, ENCODE, 1.25),
    Target("mobile_sam", "FP32, peak memory, share of samexporter's", "fp32", PLAIN, memory, 0.5, True),
    Target("mobile_sam", "INT8, image to embedding, as our FP32", "int8", None, ENCODE, 1.2),
    Target("mobile_sam", "FP32, a click to masks, as samexporter", "fp32", PLAIN, CLICK, 1.6),
    Target("sam_edge_tiny", "FP32, everything, times as fast as PyTorch", "fp32", PYTORCH, EVERYTHING, 5.0),
)


@dataclass(frozen=True)
class Reached:
    """A target and what was measured: the figure, and the variant that has it."""

    target: Target
    variant: str
    figure: float

    @property
    def holds(self) -> bool:
        """Whether the target is reached."""
        limit = self.target.limit
        return self.figure <= limit if self.target.at_most else self.figure >= limit


def reached(report: dict[str, Any], targets: Sequence[Target] = TARGETS) -> Iterator[Reached]:
    """Every target of the report's model that it has figures for."""
    rows = report["rows"]
    for target in targets:
        if target.model != report["model"]["name"]:
            continue
        found = []
        for id, row in rows.items():
            if not (id.startswith("sam-edge ") and id.endswith(f"-{target.ours}")):
                continue
            other = rows.get(target.beside or f"{id.removesuffix(target.ours)}fp32", {})
            figure = target.figure(row, other)
            if figure is not None:
                found.append(Reached(target, id.removeprefix("sam-edge "), figure))
        if found:
            yield (min if target.at_most else max)(found, key=lambda one: one.figure)


def markdown(reports: Sequence[dict[str, Any]]) -> str:
    """The table, and what the figures are of."""
    lines = ["| model | what | target | figure | by | reached |", "|---|---|---:|---:|---|---|"]
    for report in reports:
        for one in reached(report):
            sign = "at most" if one.target.at_most else "at least"
            lines.append(
                f"| {one.target.model} | {one.target.what} | {sign} {one.target.limit:g} | {one.figure:.3g} "
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


def read(path: Path) -> dict[str, Any]:
    """A report of `peers`.

    Raises:
        SamEdgeError: it is something else.
    """
    try:
        report = json.loads(path.read_text("utf-8"))
        if all(key in report for key in ("model", "rows", "machine", "settings")):
            return dict(report)
    except (OSError, ValueError) as error:
        raise SamEdgeError(f"{path} cannot be read ({error}); give what `peers --out` wrote") from error
    raise SamEdgeError(f"{path} is no report of `peers`; give what its --out wrote")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0, or 2 where a file is no report."""
    parser = argparse.ArgumentParser(
        prog="python -m sam_edge.benchmarks.goals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reports", type=Path, nargs="+", metavar="FILE")
    try:
        print(markdown([read(path) for path in parser.parse_args(argv).reports]))
    except SamEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
