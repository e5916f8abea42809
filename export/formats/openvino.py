"""OpenVINO IR: for Intel's CPUs, GPUs and NPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sam_edge import axes
from sam_edge.bundle.variant import STAGES
from sam_edge.errors import BackendError, SamEdgeError

from ..context.job import Job, ModuleJob, Written, because_of_iou
from ..context.lowerings import OPENVINO, PLAIN, TILE_MB
from ..context.options import Option, Options
from .base import Format, Tensors

Recipe = Callable[[Job], Written]

DYNAMIC = Option(
    "dynamic",
    False,
    "OpenVINO: decoders take any number of prompts and points",
    {"action": "store_true"},
)


class OpenVinoFormat(Format[Recipe]):
    """OpenVINO IR, converted from the ONNX files."""

    info = axes.FORMATS.get("openvino")
    suffix = ".xml"
    packages = ("openvino",)
    tools = ("torch", "onnx", "onnxsim", "openvino", "numpy")
    options = (DYNAMIC, TILE_MB)

    def check(self, options: Options) -> None:
        """Text embeddings need dynamic shapes."""
        if options.text_embeddings and not DYNAMIC.of(options):
            raise SamEdgeError(
                "--text-embeddings needs --dynamic for OpenVINO: otherwise its decoders take a fixed number "
                "of tokens"
            )

    def check_machine(self, options: Options) -> None:
        """BF16 is measured by computing in it."""
        super().check_machine(options)
        if "bf16" in options.precisions:
            from sam_edge.backends.openvino import NO_BF16, has_bf16

            if not has_bf16():
                raise BackendError(
                    f"--precision bf16 is verified by computing in it, and {NO_BF16}; leave bf16 out of "
                    "--precision"
                )

    def tensors(self, path: Path) -> tuple[Tensors, Tensors]:
        """See the base class."""
        from ..graphs import openvino

        return openvino.tensors(path)


def _write_decoder(job: Job, precision: str) -> list[str]:
    """The decoder's graphs, the stages with the weights of the decoder; returns what stayed in float."""
    from ..graphs import openvino
    from ..quantize import openvino_int8

    static = not DYNAMIC.of(job.context.options)
    kept: list[str] = []
    for part, exact in job.context.decoder_parts().items():
        path, facts = job.path(part), job.part_facts(part, precision=precision)
        # Stages are for many prompts.
        fixed = static and part not in STAGES
        if precision == "int8":
            kept += openvino_int8.write_decoder_int8(exact, path, facts, fixed)
        else:
            kept += openvino.write(exact, path, facts, precision, fixed)
        if part in STAGES:
            openvino.share_weights(path, job.path("decoder"))
    return kept


def _write_encoder(job: Job) -> list[str]:
    from ..graphs import openvino

    source = job.context.graph("encoder", OPENVINO)
    return openvino.write(source, job.path("encoder"), job.part_facts("encoder"), job.precision)


def write_float(job: Job) -> Written:
    """FP32, or weights in FP16."""
    kept = _write_encoder(job) + _write_decoder(job, job.precision)
    return Written(list(dict.fromkeys(kept)))


def write_bf16(job: Job) -> Written:
    """The encoder of FP16, which the runtime computes in BF16; masks are drawn from the decoder's digits."""
    kept = [*_write_encoder(job), "decoder: as in fp16, masks are drawn from its digits"]
    return Written(list(dict.fromkeys(kept + _write_decoder(job, "fp16"))))


def write_int8(job: Job) -> Written:
    """The encoder's products in INT8, the decoder's weights."""
    from ..quantize import openvino_int8

    kept = list(dict.fromkeys(_write_decoder(job, "int8")))
    # OpenVINO fuses attention by itself, and tensors in INT8 are small.
    source = job.context.graph("encoder", PLAIN, equalized=True)
    observed = job.context.observed(source)

    def quantize(names: Sequence[str]) -> None:
        encoder, facts = job.path("encoder"), job.part_facts("encoder")
        openvino_int8.write_encoder_int8(source, encoder, facts, observed, names, job.full_range)

    left, remark = job.search(source, quantize)
    kept += ["attention scores, softmax and values", "LayerNorm", "GELU"]
    return Written([*because_of_iou(left), *kept], remark, uses_integers=True)


def write_module_float(job: ModuleJob) -> list[str]:
    """FP32, or weights in FP16: for "bf16", too. One text or image a call, which NPUs need; a CPU gains
    little from more."""
    from ..graphs import openvino

    precision = "fp16" if job.precision == "bf16" else job.precision
    return openvino.write(job.graph(), job.path, {**job.facts, "precision": precision}, precision)


def write_module_int8(job: ModuleJob) -> list[str]:
    """Weights in INT8."""
    from ..quantize import openvino_int8

    openvino_int8.write_decoder_int8(job.graph(), job.path, job.facts)
    return []


FORMAT = OpenVinoFormat()
FORMAT.recipes |= {"fp32": write_float, "fp16": write_float, "bf16": write_bf16, "int8": write_int8}
FORMAT.module_recipes |= dict.fromkeys(("fp32", "fp16", "bf16"), write_module_float)
FORMAT.module_recipes["int8"] = write_module_int8
