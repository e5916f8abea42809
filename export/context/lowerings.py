"""How the reference is lowered and traced to FP32 ONNX files, the source of most other files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sam_edge.bundle.variant import STAGES
from sam_edge.models.catalogue import Model

from ..architectures.lowering import has_cpu_lowering, lower
from ..architectures.mask_decoder_cpu import has_stages
from ..architectures.model import SamModel
from ..graphs import onnx
from ..optimize.tiling import TILE_MB as DEFAULT_TILE_MB
from .options import Option, Options

# Of every format whose graphs are lowered for a CPU's cache.
TILE_MB = Option(
    "chunk-mb",
    DEFAULT_TILE_MB,
    "tile size in MB for attention scores (ONNX) and for tensors between TinyViT's convolutions: smaller "
    f"tiles take less memory and more operators (default: {DEFAULT_TILE_MB:g}, which fits a CPU's cache)",
    {"type": float, "metavar": "MB"},
)
# The decoder with the outputs of all its parts.
WHOLE = "whole-decoder"


@dataclass(frozen=True)
class Tracing:
    """What a lowering is given besides the model: its catalogue entry, the options of the export, and
    `graph(part)`, another part of the same lowering."""

    model: Model
    options: Options
    graph: Callable[[str], Path]


class Lowering:
    """Rewrites the reference for one kind of runtime; this base class leaves it unchanged."""

    name = "plain"
    # The lowering whose prepared model it shares; its own if empty.
    prepared_as = ""

    def for_model(self, sam: SamModel) -> Lowering:
        """This lowering, or the one that makes the same graphs of `sam`."""
        return self if has_cpu_lowering(sam) else ONNXRUNTIME

    def prepare(self, sam: SamModel, options: Options) -> SamModel:
        """The same function in other operators; called once for all parts."""
        return sam

    def parts(self, sam: SamModel) -> tuple[str, ...]:
        """The graphs of the decoder that are written of a prepared model: "decoder", and `STAGES` if it has
        them."""
        return ("decoder", *STAGES) if has_stages(sam) else ("decoder",)

    def write(self, sam: SamModel, part: str, path: Path, tracing: Tracing) -> None:
        """Write "encoder", or one of `parts`, of a prepared model to `path`."""
        onnx.write_encoder(sam, tracing.model, path)


class _OnnxRuntime(Lowering):
    """For ONNX Runtime's CPU kernels: attention in tiles, the decoder reassociated and in stages."""

    name = "onnxruntime"

    def for_model(self, sam: SamModel) -> Lowering:
        return self

    def prepare(self, sam: SamModel, options: Options) -> SamModel:
        return lower(sam, "onnxruntime", TILE_MB.of(options))

    def write(self, sam: SamModel, part: str, path: Path, tracing: Tracing) -> None:
        if part == "encoder":
            onnx.write_encoder(sam, tracing.model, path)
            return
        stages = has_stages(sam)
        write_whole = partial(
            onnx.write_decoder, sam, tracing.model, texts=tracing.options.text_embeddings, stages=stages
        )
        if part == WHOLE or not stages:
            write_whole(path)
        elif part == "decoder":
            onnx.write_part(tracing.graph(WHOLE), path, onnx.DECODER_OUTPUTS)
        elif part == "scorer":
            onnx.write_part(tracing.graph(WHOLE), path, onnx.SCORER_OUTPUTS)
        else:
            onnx.write_part(tracing.graph(WHOLE), path, onnx.UPSCALER_OUTPUTS, onnx.STAGE_VALUES)


class _OpenVino(Lowering):
    """For OpenVINO, which fuses attention by itself: the encoder with TinyViT's convolutions in tiles."""

    name = "openvino"

    def prepare(self, sam: SamModel, options: Options) -> SamModel:
        return lower(sam, "openvino", TILE_MB.of(options))


class _Web(_OnnxRuntime):
    """For browsers: as for ONNX Runtime, but the upscaler takes any number of lines of image tokens."""

    name = "web"
    prepared_as = "onnxruntime"

    def write(self, sam: SamModel, part: str, path: Path, tracing: Tracing) -> None:
        if part == "upscaler":
            onnx.write_upscaler(sam, tracing.model, path)
        else:
            super().write(sam, part, path, tracing)


PLAIN = Lowering()
ONNXRUNTIME = _OnnxRuntime()
OPENVINO = _OpenVino()
WEB = _Web()
