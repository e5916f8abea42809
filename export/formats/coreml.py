"""Core ML: for Apple's CPUs, GPUs and Neural Engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sam_edge import axes
from sam_edge.errors import SamEdgeError

from ..context.job import Job, ModuleJob, Written
from ..context.options import Option, Options
from .base import Format, Tensors

Recipe = Callable[[Job], Written]

IOS = Option("ios", 17, "Core ML: the oldest iOS that runs it", {"type": int, "choices": (16, 17, 18)})
W8A8 = Option("w8a8", False, "Core ML: activations in INT8, too (iOS 17 or later)", {"action": "store_true"})


class CoreMlFormat(Format[Recipe]):
    """ML Programs, converted from PyTorch."""

    info = axes.FORMATS.get("coreml")
    suffix = ".mlpackage"
    packages = ("coremltools",)
    tools = ("torch", "coremltools", "numpy")
    options = (IOS, W8A8)

    def check(self, options: Options) -> None:
        """W8A8 is a kind of INT8; text embeddings are not supported."""
        if W8A8.of(options) and not ("int8" in options.precisions and IOS.of(options) >= 17):
            raise SamEdgeError("--w8a8 needs --format coreml, --precision int8 and --ios 17 or 18")
        if options.text_embeddings:
            raise SamEdgeError("--text-embeddings is not supported by Core ML; leave coreml out of --format")

    def tensors(self, path: Path) -> tuple[Tensors, Tensors]:
        """See the base class."""
        from ..graphs import coreml

        return coreml.tensors(path)

    def facts(self, options: Options) -> dict[str, Any]:
        """The oldest iOS."""
        return {"deployment_target": f"iOS{IOS.of(options)}"}


def write(job: Job) -> Written:
    """Both graphs; INT8 from the equalized reference, as W8A8 where asked for."""
    from ..graphs import coreml
    from ..quantize import coreml_w8a8

    context, ios, int8 = job.context, IOS.of(job.context.options), job.precision == "int8"
    sam, model = context.equalized if int8 else context.sam, context.model
    encoder, facts = job.path("encoder"), job.part_facts("encoder")
    if int8 and W8A8.of(context.options):
        images = context.calibration.images
        kept = coreml_w8a8.write_encoder_w8a8(sam, model, encoder, facts, ios, images)
    else:
        kept = coreml.write_encoder(sam, model, encoder, facts, job.precision, ios)
    decoder, facts = job.path("decoder"), job.part_facts("decoder")
    return Written(kept + coreml.write_decoder(sam, model, decoder, facts, job.precision, ios))


def write_module(job: ModuleJob) -> list[str]:
    """One text or image a call."""
    from ..graphs import coreml

    return coreml.write_module(
        job.module,
        job.example[:1],
        job.path,
        name=job.input,
        output=job.output,
        facts=job.facts,
        precision=job.precision,
        ios=IOS.of(job.options),
    )


FORMAT = CoreMlFormat()
FORMAT.recipes |= dict.fromkeys(("fp32", "fp16", "int8"), write)
FORMAT.module_recipes |= dict.fromkeys(("fp32", "fp16", "int8"), write_module)
