"""What sam-edge aims at, and what was reached: one table.

    python -m tools.peers BUNDLE ... --out FILE.json
    python -m tools.goals FILE.json ... --measure BUNDLE ... --checkpoint FILE ...

Reports of `peers` hold what is beside the peers; what they do not hold is measured on each BUNDLE (see
`beyond_peers`), which was made from one of the checkpoints (the embedded model's need not be named), and kept
in --keep as reports too. Targets of what is neither are left out. Figures are ratios of medians within one
session. Of several variants that may reach a target, the best one counts, and is named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_edge.bundle.bundle import open_bundle
from sam_edge.errors import CheckpointError, OutputError, SamEdgeError
from sam_edge.system.files import sha256_file, write_atomically
from tools.peers.roster import check_checkpoint
from tools.peers.table import median

Row = dict[str, Any]
PYTORCH, PLAIN, QUANTISED = "segment_anything", "samexporter", "samexporter-quantized"
# Rows that `beyond_peers` measures.
PUBLISHED, PEAK = "published ONNX", "matrix products"


@dataclass(frozen=True)
class Target:
    """One line of the table.

    Attributes:
        model: as the catalogue calls it.
        what: in words.
        ours: the precision of sam-edge's variants.
        beside: the other row's id; None for our own FP32 on the same backend.
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


def share(name: str) -> Callable[[Row, Row], float | None]:
    """Our samples called `name` as a share of the other's."""

    def figure(ours: Row, other: Row) -> float | None:
        return median(ours[name]) / median(other[name]) if ours.get(name) and other.get(name) else None

    return figure


def closer(ours: Row, other: Row) -> float | None:
    """By how much our mean IoU with PyTorch's masks is higher."""
    both = "parity" in ours and "parity" in other
    return ours["parity"]["mean_iou"] - other["parity"]["mean_iou"] if both else None


ENCODE, CLICK, EVERYTHING = faster("encode_ms"), faster("click_ms"), faster("everything_ms")
DECODE, FIRST, MEMORY, OF_PEAK = (
    faster("decode_ms"),
    share("first_mask_ms"),
    share("peak_mb"),
    share("gflops"),
)
TARGETS = (
    Target("vit_b", "FP32, image to embedding, times as fast as PyTorch", "fp32", PYTORCH, ENCODE, 2.2),
    Target("vit_b", "FP32, image to embedding, as samexporter", "fp32", PLAIN, ENCODE, 1.0),
    Target("vit_b", "FP32, peak memory, share of samexporter's", "fp32", PLAIN, MEMORY, 0.25, True),
    Target("vit_b", "FP32, encoder, share of the matrix-product peak", "fp32", PEAK, OF_PEAK, 0.9),
    Target("vit_b", "INT8, image to embedding, as our FP32", "int8", None, ENCODE, 1.4),
    Target("vit_b", "INT8, image to embedding, as samexporter's", "int8", QUANTISED, ENCODE, 1.15),
    Target("vit_b", "INT8, mean IoU above samexporter's", "int8", QUANTISED, closer, 0.0),
    Target("mobile_sam", "FP32, image to embedding, times as fast as PyTorch", "fp32", PYTORCH, ENCODE, 2.8),
    Target("mobile_sam", "FP32, image to embedding, as samexporter", "fp32", PLAIN, ENCODE, 1.25),
    Target("mobile_sam", "FP32, peak memory, share of samexporter's", "fp32", PLAIN, MEMORY, 0.5, True),
    Target("mobile_sam", "FP32, encoder, share of the matrix-product peak", "fp32", PEAK, OF_PEAK, 0.8),
    Target("mobile_sam", "INT8, image to embedding, as our FP32", "int8", None, ENCODE, 1.2),
    Target("mobile_sam", "FP32, a click to masks, as samexporter", "fp32", PLAIN, CLICK, 1.6),
    Target("mobile_sam", "FP32, a click to logits, as the published graph", "fp32", PUBLISHED, DECODE, 1.6),
    Target("mobile_sam", "FP32, everything, times as fast as PyTorch", "fp32", PYTORCH, EVERYTHING, 5.0),
    Target("sam_edge_tiny", "FP32, everything, times as fast as PyTorch", "fp32", PYTORCH, EVERYTHING, 5.0),
    Target(
        "sam_edge_tiny",
        "INT8, load to first mask, warm, share of plain FP32's",
        "int8",
        PUBLISHED,
        FIRST,
        0.5,
        True,
    ),
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


def measure(
    bundles: Sequence[Path],
    checkpoints: Sequence[Path],
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """A report of `beyond_peers` on each bundle, which `keep` is given as soon as it is made.

    Raises:
        SamEdgeError: a bundle or its checkpoint is not there; before anything is measured.
    """
    for path in checkpoints:
        if not path.is_file():
            raise CheckpointError(f"checkpoint {path} is not a file")
    by_hash = {sha256_file(path): path for path in checkpoints}
    opened = [open_bundle(path) for path in bundles]
    made_from = [check_checkpoint(one, by_hash.get(one.manifest.model_id)) for one in opened]
    # It needs PyTorch, which a table of reports does not.
    from tools.beyond_peers import measured

    found = []
    for one, checkpoint in zip(opened, made_from, strict=True):
        found.append(measured(one.path, checkpoint, **settings))
        keep(found[-1])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0, 1 where something cannot be measured, 2 where the input is wrong."""
    try:
        return run(parsed(argv))
    except SamEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.goals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reports", type=Path, nargs="*", metavar="FILE", help="what --out or --keep wrote")
    parser.add_argument("--measure", type=Path, nargs="+", default=[], metavar="BUNDLE")
    parser.add_argument("--checkpoint", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="where what is measured is written, MODEL.json"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="a turn of an encoder")
    parser.add_argument("--points-per-side", type=int, default=32, help="of everything-mode")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Read, measure, print."""
    if not args.reports and not args.measure:
        raise SamEdgeError("nothing to print; give reports of `peers`, or --measure BUNDLE")
    for name in ("threads", "rounds", "points_per_side"):
        if getattr(args, name) < 1:
            option = name.replace("_", "-")
            raise SamEdgeError(f"--{option} is {getattr(args, name)}; expected 1 or more")
    reports = [read(path) for path in args.reports]
    if args.keep is not None:
        try:
            args.keep.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {args.keep}: {error.strerror}; choose another folder") from error
    settings = {key: getattr(args, key) for key in ("threads", "rounds", "seconds", "points_per_side")}

    def keep(report: dict[str, Any]) -> None:
        if args.keep is not None:
            path = args.keep / f"{report['model']['name']}.json"
            write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())

    def say(what: str) -> None:
        print(what, file=sys.stderr)

    found = measure(args.measure, args.checkpoint, keep, say=say, **settings)
    print(markdown([*reports, *found]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
