"""ONNX: for ONNX Runtime, in Python and in browsers, and whatever else reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sam_edge import axes
from sam_edge.bundle.variant import STAGES
from sam_edge.errors import SamEdgeError

from ..context.job import Job, ModuleJob, Written, because_of_iou
from ..context.lowerings import TILE_MB
from ..context.options import Option, Options
from ..contracts import CONTRACTS
from ..graphs import onnx
from ..quantize import fp16, onnx_int8
from .base import Format, Tensors

Parts = Mapping[str, Path]
# FP32 files of the decoder's parts -> the graphs of all parts, which are still to get their metadata.
Recipe = Callable[[Job, Parts], tuple[Parts, Written]]

COMPAT: Option[str | None] = Option(
    "compat",
    None,
    "ONNX: also write the decoder with the inputs and outputs that another package publishes",
    {"choices": CONTRACTS.names()},
)
_OVERFLOW = "FP32, as FP16 would overflow or lose digits"


class OnnxFormat(Format[Recipe]):
    """ONNX with the opset `graphs.onnx.OPSET`."""

    info = axes.FORMATS.get("onnx")
    suffix = ".onnx"
    tools = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "numpy")
    options = (COMPAT, TILE_MB)

    def check(self, options: Options) -> None:
        """Text embeddings have no published contract."""
        compat = COMPAT.of(options)
        if compat and options.text_embeddings:
            raise SamEdgeError(
                f"--compat {compat} does not support --text-embeddings; leave one of the two out"
            )

    def write(self, job: Job) -> Written:
        """See the base class."""
        return self.write_parts(job, job.context.decoder_parts())

    def write_parts(
        self, job: Job, parts: Parts, rewrite: Callable[[Path, Path], None] | None = None
    ) -> Written:
        """Write as `write` does, with the decoder graphs given.

        Args:
            job: what to write and where.
            parts: FP32 files of the decoder's parts.
            rewrite: changes each graph before it gets its metadata: source, target.
        """
        sources, written = self.recipes[job.precision](job, parts)
        for part in ("encoder", *parts):
            source = sources[part]
            if rewrite is not None:
                source = job.context.work / f"rewritten-{part}.onnx"
                rewrite(sources[part], source)
            facts = job.part_facts(part, opset=onnx.OPSET)
            # The stages' weights are the decoder's.
            onnx.stamp(source, job.path(part), facts, job.path("decoder") if part in STAGES else None)
        compat = COMPAT.of(job.context.options)
        if compat:
            decoder = job.path("decoder")
            contract = CONTRACTS.get(compat)
            contract.write(decoder, decoder.with_stem(f"decoder-{compat}"), job.context.model)
        return written

    def tensors(self, path: Path) -> tuple[Tensors, Tensors]:
        """See the base class."""
        return onnx.tensors(path)

    def facts(self, options: Options) -> dict[str, Any]:
        """The opset."""
        return {"opset": onnx.OPSET}


def write_fp32(job: Job, parts: Parts) -> tuple[Parts, Written]:
    """The graphs as they are."""
    return {"encoder": job.context.graph("encoder"), **parts}, Written([])


def write_fp16(job: Job, parts: Parts) -> tuple[Parts, Written]:
    """FP16 but for what would overflow."""
    context = job.context
    kept: list[str] = []
    sources = {}
    for part, exact in {"encoder": context.graph("encoder"), **parts}.items():
        sources[part] = context.work / f"fp16-{part}.onnx"
        fp32_nodes = fp16.convert(exact, sources[part], context.part_inputs(part))
        if part not in STAGES:
            kept += [f"{part} {name}: {_OVERFLOW}" for name in fp32_nodes]
    return sources, Written(kept)


def write_int8(job: Job, parts: Parts) -> tuple[Parts, Written]:
    """The encoder's products in INT8 (QDQ), the decoder's weights."""
    source = job.context.graph("encoder", equalized=True)
    observed = job.context.observed(source)
    onnx_int8.compress_decoder(parts["decoder"], job.path("decoder"))
    left, remark = job.search(
        source,
        lambda names: onnx_int8.quantize_encoder(
            source, job.path("encoder"), observed, names, job.full_range
        ),
    )
    for part in parts.keys() & set(STAGES):
        onnx_int8.compress_decoder(parts[part], job.path(part))
    kept = [
        *because_of_iou(left),
        "encoder, convolutions: activations in float, which take no longer in ONNX Runtime",
        "decoder: activations in float, masks are drawn from them",
    ]
    sources = {part: job.path(part) for part in ("encoder", *parts)}
    return sources, Written(kept, remark, uses_integers=True)


def _stamp_module(job: ModuleJob, source: Path) -> None:
    onnx.stamp(source, job.path, {**job.facts, "opset": onnx.OPSET})


def write_module_fp32(job: ModuleJob) -> list[str]:
    """The graph as it is."""
    _stamp_module(job, job.graph())
    return []


def write_module_fp16(job: ModuleJob) -> list[str]:
    """FP16 but for what would overflow."""
    made = job.work / f"clip-fp16-{job.name}.onnx"
    names = fp16.convert(job.graph(), made, job.samples())
    _stamp_module(job, made)
    return [f"{job.name} {name}: {_OVERFLOW}" for name in names]


def write_module_int8(job: ModuleJob) -> list[str]:
    """Weights in INT8."""
    made = job.work / f"clip-int8-{job.name}.onnx"
    onnx_int8.compress_decoder(job.graph(), made)
    _stamp_module(job, made)
    return []


FORMAT = OnnxFormat()
FORMAT.recipes |= {"fp32": write_fp32, "fp16": write_fp16, "int8": write_int8}
FORMAT.module_recipes |= {
    "fp32": write_module_fp32,
    "fp16": write_module_fp16,
    "int8": write_module_int8,
}
