"""Makes the hostile twin of a model: the same function in FP32, as hard to quantize as real SAM checkpoints.

Small models do not have the distributions that break quantization, so they are added, exactly, after the
literature: channels of LayerNorm outputs that are many times larger than the others (SmoothQuant, Xiao et al.
2023; PQ-SAM, Liu et al. 2024, which also finds them far from zero), keys with two modes far from zero
(PTQ4SAM, Lv et al. 2024), uneven channels in the projections of attention (AHCPTQ, Zhang et al. 2025) and in
convolutional trunks (Nagel et al. 2019). The inverse goes into the columns of the next weight, where one
scale per output channel cannot absorb it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from sam_edge.export.architectures.model import SamModel
from sam_edge.export.quantize.equalization import (
    Layer,
    attentions,
    divide_outputs,
    links,
    lower_bias,
    scale_inputs,
    streams,
    tables,
)

STRENGTH = 50.0
KEY_OFFSET = 100.0
VALUE_OFFSET = 5.0
OUTLIERS = 1 / 16


def absorb(layer: Layer, offset: Tensor) -> None:
    """Change a layer's bias such that `offset` may be subtracted from its inputs, in place."""
    assert layer.bias is not None
    weight = layer.weight.double().flatten(2).sum(2) if layer.weight.dim() == 4 else layer.weight.double()
    layer.bias.copy_(layer.bias.double() + weight @ offset)


def hostile_twin(sam: SamModel, strength: float = STRENGTH, seed: int = 0, offsets: bool = True) -> SamModel:
    """Copy a model, with the same FP32 outputs up to rounding and with outlier channels inside.

    Args:
        sam: the model; it is not changed.
        strength: how many times larger an outlier channel becomes.
        seed: chooses the channels.
        offsets: also move the outputs of norms and the values of attention away from zero, which no rewrite
            undoes.
    """
    twin = copy.deepcopy(sam)
    encoder = twin.image_encoder
    random = torch.Generator().manual_seed(seed)

    def outliers(channels: int) -> Tensor:
        """A scale for each channel: 1 for most, `strength` for a few."""
        scale = torch.ones(channels, dtype=torch.float64)
        scale[torch.randperm(channels, generator=random)[: max(1, round(channels * OUTLIERS))]] = strength
        return scale

    def signs(channels: int) -> Tensor:
        return torch.randint(0, 2, (channels,), generator=random).double() * 2 - 1

    with torch.no_grad():
        for link in links(encoder):
            channels = link.norm.weight.numel()
            if offsets and not link.padded and all(layer.bias is not None for layer in link.readers):
                offset = signs(channels)
                lower_bias(link.norm, offset)
                for layer in link.readers:
                    absorb(layer, offset)
            scale = outliers(channels)
            divide_outputs(link.norm, 1 / scale)
            for layer in link.readers:
                scale_inputs(layer, 1 / scale)
        for attention in attentions(encoder):
            dim = attention.proj.in_features
            queries, keys, values = (slice(part * dim, (part + 1) * dim) for part in range(3))
            # Relative positions are shared by the heads, and so is the scale of what they multiply.
            scale = outliers(dim // attention.num_heads)
            divide_outputs(attention.qkv, 1 / scale.repeat(attention.num_heads), queries)
            divide_outputs(attention.qkv, scale.repeat(attention.num_heads), keys)
            for table in tables(attention):
                table.copy_(table.double() / scale)
            lower_bias(attention.qkv, KEY_OFFSET * signs(dim), keys)
            if offsets:
                offset = VALUE_OFFSET * signs(dim)
                lower_bias(attention.qkv, offset, values)
                absorb(attention.proj, offset)
            scale = outliers(dim)
            divide_outputs(attention.qkv, 1 / scale, values)
            scale_inputs(attention.proj, 1 / scale)
        for stream in streams(encoder):
            scale = outliers(stream.producers[0].out_channels)
            for producer in stream.producers:
                divide_outputs(producer, 1 / scale)
            for consumer in stream.consumers:
                scale_inputs(consumer, 1 / scale)
    return twin
