"""EfficientSAM's image encoder: a plain ViT with global attention (Dosovitskiy et al. 2021, Xiong et al.
2023).

Its position embeddings are those of the pre-training at 224 pixels, interpolated to the larger grid.
Parameter names are those of the published checkpoints, except for the MLPs', which are named as in SAM.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_edge.models.encoders import PlainVitEncoder

from .image_encoder_vit import PatchEmbed
from .layers import LayerNorm2d, MLPBlock

# Queries per tile: the same result without a (tokens x tokens) tensor.
QUERIES = 512


class Attention(nn.Module):
    """Multi-head self-attention, computed for a tile of queries at a time."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, dim) -> (B, n, dim)."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        keys = k.transpose(2, 3)
        parts = [
            torch.softmax((some * self.scale) @ keys, dim=-1) @ v
            for some in (q[:, :, start : start + QUERIES] for start in range(0, tokens, QUERIES))
        ]
        out = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLPBlock(dim, dim * mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ImageEncoderPlainViT(nn.Module):
    """(B, 3, S, S) normalised RGB -> (B, out_chans, S / 16, S / 16)."""

    def __init__(self, config: PlainVitEncoder, image_size: int, out_chans: int) -> None:
        super().__init__()
        dim = config.embed_dim
        self.side = image_size // config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, dim)
        # The unused class token's, then those of `position_side` x `position_side` patches.
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.position_side**2, dim))
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(dim, out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def positions(self) -> Tensor:
        """Position embeddings of the patches, interpolated to the grid, (1, side, side, dim)."""
        table = self.pos_embed[:, 1:]
        stored = math.isqrt(table.shape[1])
        grid = table.reshape(1, stored, stored, -1)
        if stored == self.side:
            return grid
        size = self.side, self.side
        grid = F.interpolate(grid.permute(0, 3, 1, 2), size, mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1)

    @torch.no_grad()
    def fuse(self) -> ImageEncoderPlainViT:
        """Interpolate the position embeddings once, in place, and return the encoder."""
        unused, positions = self.pos_embed[:, :1], self.positions().flatten(1, 2)
        self.pos_embed = nn.Parameter(torch.cat([unused, positions], dim=1))
        return self

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        batch, height, width, dim = x.shape
        # OpenVINO would reorder tensors with four axes to NCHW and back.
        x = x.flatten(1, 2) + self.positions().flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.neck(x.reshape(batch, height, width, dim).permute(0, 3, 1, 2))
