"""Lower a model for a runtime's CPU kernels: the same function with less arithmetic and memory.

What is done to an encoder lies beside it, in `image_encoder_*_cpu.py`; `LOWERINGS` lists which encoder has
which. The mask decoder is lowered in `mask_decoder_cpu.py`, the same for every runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import nn

from ..optimize.fuse import copy_sharing_tensors
from ..optimize.tiling import TILE_MB
from . import image_encoder_tiny_vit_cpu, image_encoder_vit_cpu
from .image_encoder_tiny_vit import ImageEncoderTinyViT
from .image_encoder_vit import ImageEncoderViT
from .mask_decoder_cpu import reassociate
from .model import SamModel

Runtime = Literal["onnxruntime", "openvino"]
# Changes an encoder in place; the second argument is the tile size in MB.
EncoderLowering = Callable[[Any, float], None]

# Encoder -> its lowering for each runtime that gains from one.
LOWERINGS: dict[type[nn.Module], Mapping[str, EncoderLowering]] = {
    ImageEncoderTinyViT: image_encoder_tiny_vit_cpu.LOWERINGS,
    ImageEncoderViT: image_encoder_vit_cpu.LOWERINGS,
}


def lower(sam: SamModel, runtime: Runtime, tile_mb: float = TILE_MB) -> SamModel:
    """Copy `sam` with its encoder lowered for the CPU kernels of `runtime` and its decoder reassociated.

        >>> sam = fuse(build_reference(load_checkpoint(path)))
        >>> faster = lower(sam, "onnxruntime")

    Args:
        sam: fused (see `optimize.fuse`); left as it is.
        runtime: "onnxruntime" or "openvino".
        tile_mb: tile size in MB for attention scores and for tensors between convolutions.
    """
    sam = reassociate(sam)
    sam.image_encoder = copy_sharing_tensors(sam.image_encoder)
    for module in list(sam.image_encoder.modules()):
        lowering = LOWERINGS.get(type(module), {}).get(runtime)
        if lowering is not None:
            lowering(module, tile_mb)
    return sam.requires_grad_(False)


def has_cpu_lowering(sam: SamModel) -> bool:
    """Whether `lower` changes the encoder for some runtime."""
    return any(type(module) in LOWERINGS for module in sam.image_encoder.modules())
