"""Lowering of MobileSAM's TinyViT for CPUs: tiled attention, and convolutions in tiles of rows.

Both runtimes gain from tiling the convolutions with the largest tensors. Only ONNX Runtime gains from tiling
attention: OpenVINO fuses it by itself.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from ..optimize.attention import LearnedBias, Projections, WindowedAttention
from ..optimize.tiling import RowTiledConvolutions
from .image_encoder_tiny_vit import Block, FusedAttention, ImageEncoderTinyViT, InvertedResidual, Stage


def lower_for_onnxruntime(encoder: ImageEncoderTinyViT, tile_mb: float) -> None:
    """Tile the attention of every block and the inverted residuals, in place."""
    for module in encoder.layers:
        stage = cast(Stage, module)
        _tile_residuals(stage, tile_mb)
        for block in stage.blocks:
            if isinstance(block, Block):
                block.attn = _tiled_attention(block, tile_mb)  # type: ignore[assignment]
                block.window = 0  # The attention partitions its input itself.


def lower_for_openvino(encoder: ImageEncoderTinyViT, tile_mb: float) -> None:
    """Tile the patch embedding, the inverted residuals and the patch merging, in place."""
    sequence: Any = encoder.patch_embed.seq
    first, _, second = sequence
    encoder.patch_embed.seq = RowTiledConvolutions((first, second), tile_mb)  # type: ignore[assignment]
    for module in encoder.layers:
        stage = cast(Stage, module)
        _tile_residuals(stage, tile_mb)
        if (merging := stage.downsample) is not None:
            convolutions = merging.conv1, merging.conv2, merging.conv3
            stage.downsample = RowTiledConvolutions(convolutions, tile_mb)  # type: ignore[assignment]


def _tile_residuals(stage: Stage, tile_mb: float) -> None:
    for index, block in enumerate(stage.blocks):
        if isinstance(block, InvertedResidual):
            convolutions = block.conv1, block.conv2, block.conv3
            stage.blocks[index] = RowTiledConvolutions(convolutions, tile_mb, residual=True)


def _tiled_attention(block: Block, tile_mb: float) -> nn.Module:
    attention = block.attn
    assert isinstance(attention, FusedAttention)
    norm, proj = attention.norm, attention.proj
    assert isinstance(norm, nn.LayerNorm) and isinstance(proj, nn.Linear)
    # Windows are padded with zeros before the norm, which turns them into its bias.
    projections = Projections(attention.qkv, proj, attention.num_heads, norm.bias.detach())
    return WindowedAttention(norm, projections, LearnedBias(attention.bias), block.window, tile_mb)


LOWERINGS = {"onnxruntime": lower_for_onnxruntime, "openvino": lower_for_openvino}
