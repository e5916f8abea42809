"""Lowering of SAM's ViT for CPUs: tiled attention without padding (see `optimize.attention`).

OpenVINO fuses attention by itself and runs the encoder as it is.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ..optimize.attention import GlobalAttention, Projections, RelativePositions, WindowedAttention
from .image_encoder_vit import Attention, Block, ImageEncoderViT, relative_positions


def lower_for_onnxruntime(encoder: ImageEncoderViT, tile_mb: float) -> None:
    """Replace the attention of every block, in place; `tile_mb` is the tile size for attention scores."""
    for module in encoder.blocks:
        block = cast(Block, module)
        block.attn = _tiled_attention(block, tile_mb)  # type: ignore[assignment]
        block.window = 0  # The attention partitions its input itself.


def _tiled_attention(block: Block, tile_mb: float) -> nn.Module:
    attention = block.attn
    # Windows are padded with zeros after the norm.
    padding = torch.zeros(attention.qkv.in_features)
    projections = Projections(attention.qkv, attention.proj, attention.num_heads, padding, attention.scale)
    along_h, along_w = (_embeddings(attention, table) for table in (attention.rel_pos_h, attention.rel_pos_w))
    positions = RelativePositions(along_h, along_w)
    if block.window:
        return WindowedAttention(nn.Identity(), projections, positions, block.window, tile_mb)
    return GlobalAttention(projections, positions, tile_mb)


def _embeddings(attention: Attention, table: Tensor) -> Tensor:
    """(size, width, size) relative positions for queries that are already scaled."""
    positions = relative_positions(table.detach().double() / attention.scale, attention.size)
    return positions.transpose(1, 2).float().contiguous()


LOWERINGS = {"onnxruntime": lower_for_onnxruntime}
