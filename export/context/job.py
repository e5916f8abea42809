"""The job of writing one variant, and its result.

Imports neither PyTorch nor a converter, so that a file that adds a format can be read where only the runtime
is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..quantize.search import Parity, search_nodes_to_exclude
from .options import Options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .export_context import ExportContext

# The share of the weights that INT8 may leave in float for masks better than its gate asks for. To reach
# the gate itself, half of the operators may stay.
LIGHT_WEIGHT_SHARE = 0.02

Quantize = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class Written:
    """Result of writing a variant.

    Attributes:
        higher_precision_ops: what was kept in a higher precision, and why, a line each.
        remark: for the user's line on this variant.
        facts: for the manifest, which other variants do not have.
        uses_integers: whether products are computed in integers, with weights of `Job.full_range`.
    """

    higher_precision_ops: list[str]
    remark: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    uses_integers: bool = False


@dataclass(frozen=True)
class Job:
    """One variant to write.

    Attributes:
        context: what the variants of this export share.
        format, precision: of the variant.
        directory: where to write; exists and is empty.
        suffix: of the format's files.
        facts: for the metadata of the files.
        full_range: whether weights that are multiplied in integers may use all 8 bits; see
            `sam_edge.axes.targets.vnni`.
        measure: the parity of what is in `directory` now.
        enough: whether a search for operators to keep in float may stop.
    """

    context: ExportContext
    format: str
    precision: str
    directory: Path
    suffix: str
    facts: Mapping[str, Any]
    full_range: bool
    measure: Callable[[], Parity]
    enough: Callable[[Parity], bool]

    def path(self, part: str) -> Path:
        """Where a graph goes."""
        return self.directory / f"{part}{self.suffix}"

    def part_facts(self, part: str, **more: Any) -> dict[str, Any]:
        """`facts` for the file of one graph."""
        return {**self.facts, **more, "graph": part}

    def search(self, source: Path, quantize: Quantize) -> tuple[list[str], str]:
        """Quantize an encoder with as few operators in float as is enough.

        Args:
            source: the FP32 ONNX file of the encoder.
            quantize: writes the variant's encoder, with the operators of these names left in float.

        Returns:
            The names left in float, and a remark.
        """
        from ..quantize.sensitivity import limit_to_weight_share

        context = self.context

        def tried(kept: Sequence[str]) -> Parity:
            quantize(kept)
            parity = self.measure()
            context.progress(
                f"INT8 with {len(kept)} operators kept in FP32: mean IoU {parity['mean_iou']:.4f}"
            )
            return parity

        kept = context.kept.get(source, [])
        first = tried(kept)
        if self.enough(first):
            return kept, f"{len(kept)} operators kept in FP32"
        ranking = context.ranking(source)
        light = limit_to_weight_share(source, ranking, LIGHT_WEIGHT_SHARE)
        found, best, _ = search_nodes_to_exclude(light, max(1, len(kept)), tried, self.enough)
        if not best["passed"]:
            heavy = ranking[: len(ranking) // 2]
            found, _, _ = search_nodes_to_exclude(heavy, 1, tried, lambda parity: bool(parity["passed"]))
        quantize(found)
        context.kept[source] = found
        remark = f"{len(found)} operators kept in FP32 (mean IoU {first['mean_iou']:.4f} with {len(kept)})"
        return found, remark


def because_of_iou(names: Sequence[str]) -> list[str]:
    """The lines on operators that `Job.search` left in float."""
    return [f"{name}: INT8 here costs the most IoU" for name in names]


@dataclass(frozen=True)
class ModuleJob:
    """One module of one input and one output to write, such as CLIP's text encoder.

    Attributes:
        name: of the graph.
        module: in PyTorch.
        example: an input, two rows.
        input, output: names of the tensors.
        options: of the export.
        precision: of the variant.
        path: where to write.
        facts: for the metadata of the file.
        work: a directory for intermediate files.
        graph: writes the FP32 ONNX file, with any number of rows, when it is first called; returns its path.
        samples: inputs to measure ranges on.
    """

    name: str
    module: nn.Module
    example: Tensor
    input: str
    output: str
    options: Options
    precision: str
    path: Path
    facts: Mapping[str, Any]
    work: Path
    graph: Callable[[], Path]
    samples: Callable[[], list[dict[str, NDArray[Any]]]]
