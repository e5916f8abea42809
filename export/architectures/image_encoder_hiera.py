"""SAM 2's image encoder: Hiera, a ViT in four stages (Ryali et al. 2023, Ravi et al. 2024).

From stage to stage the tokens become a quarter as many and twice as wide: the queries of a stage's first
block are pooled. Three blocks attend to the whole image, the others within windows. As in SAM's ViT, windows
that reach over the edge are padded with zeros after the norm, and global attention is computed for a tile of
queries at a time. Parameter names are those of the published checkpoints, except for `positions`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_edge.models.encoders import HieraEncoder

from .image_encoder_vit import PatchEmbed, window_merge, window_partition
from .layers import MLPBlock
from .pyramid import PyramidEncoder

# Queries per tile: one eighth of the 4096 tokens, so the attention scores are one eighth as large.
QUERIES = 512


def halve(x: Tensor) -> Tensor:
    """2 x 2 max pooling, channels last: (B, H, W, C) -> (B, H / 2, W / 2, C)."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2, 2).permute(0, 2, 3, 1)


class MultiScaleAttention(nn.Module):
    """Multi-head attention over a grid of tokens; with `pool`, queries are max-pooled to a quarter."""

    def __init__(self, dim: int, dim_out: int, num_heads: int, pool: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.pool = pool
        self.scale = (dim_out // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.reshape(batch, tokens, self.num_heads, dim // self.num_heads).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, n, dim_out)."""
        q, k, v = self.qkv(x.flatten(1, 2)).chunk(3, dim=-1)
        if self.pool:
            q = halve(q.reshape(*x.shape[:3], -1)).flatten(1, 2)
        q, k, v = self._heads(q), self._heads(k).transpose(2, 3), self._heads(v)
        q = q * self.scale
        parts = [q]
        if q.shape[2] > QUERIES:
            parts = [q[:, :, first : first + QUERIES] for first in range(0, q.shape[2], QUERIES)]
        parts = [torch.softmax(part @ k, dim=-1) @ v for part in parts]
        out = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        return self.proj(out.transpose(1, 2).flatten(2))


class MultiScaleBlock(nn.Module):
    """Pre-norm transformer block that pools where the width changes.

    `window` is the side of an attention window in tokens, 0 for global attention.
    """

    def __init__(self, dim: int, dim_out: int, num_heads: int, mlp_ratio: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None
        self.attn = MultiScaleAttention(dim, dim_out, num_heads, pool=dim != dim_out)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = MLPBlock(dim_out, dim_out * mlp_ratio)

    def _windowed(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, n, dim_out)."""
        batch, height, width, _ = x.shape
        down = 2 if self.attn.pool else 1
        attended = self.attn(window_partition(x, self.window))
        lines = window_merge(attended, self.window // down, height // down, width // down)
        return lines.reshape(batch, -1, attended.shape[2])

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> the same; with `pool` (B, H / 2, W / 2, dim_out)."""
        # As in SAM's ViT: OpenVINO would reorder tensors with four axes, (B, H * W, dim) it does not.
        batch, height, width, _ = x.shape
        down = 2 if self.attn.pool else 1
        tokens = x.flatten(1, 2)
        normed = self.norm1(tokens)
        if self.proj is not None:
            tokens = halve(self.proj(normed).reshape(batch, height, width, -1)).flatten(1, 2)
        normed = normed.reshape(x.shape)
        tokens = tokens + (self._windowed(normed) if self.window else self.attn(normed))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.reshape(batch, height // down, width // down, -1)


class Table(nn.Module):
    """Adds a table of position embeddings, (1, H, W, dim), to the tokens, (B, H, W, dim)."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, x: Tensor) -> Tensor:
        # OpenVINO would reorder tensors with four axes to NCHW and back.
        return (x.flatten(1, 2) + self.table.flatten(1, 2)).reshape(x.shape)


class WindowedPositions(nn.Module):
    """Adds a global table interpolated to the grid and one repeated in each window (Bolya et al. 2024)."""

    def __init__(self, dim: int, background: int, window: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, background, background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, dim, window, window))

    def positions(self) -> Tensor:
        """Sum of both tables on the grid, (1, side, side, dim)."""
        stretched = F.interpolate(self.pos_embed, size=(self.side, self.side), mode="bicubic")
        windows = self.side // self.pos_embed_window.shape[2]
        return (stretched + self.pos_embed_window.repeat(1, 1, windows, windows)).permute(0, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.positions()

    def fuse(self) -> Table:
        """Replace both tables by their sum, which does not depend on the image."""
        return Table(self.positions().detach().contiguous())


class Hiera(nn.Module):
    """(B, 3, S, S) -> features of all stages, with strides 4, 8, 16 and 32, (B, C, h, w)."""

    def __init__(self, config: HieraEncoder, image_size: int) -> None:
        super().__init__()
        dim, heads, window = config.embed_dim, config.num_heads, config.window_spec[0]
        self.patch_embed = PatchEmbed(4, dim)
        self.patch_embed.proj = nn.Conv2d(3, dim, 7, stride=4, padding=3)
        self.positions = WindowedPositions(dim, config.background, window, image_size // 4)
        self.blocks = nn.ModuleList()
        self.stage_ends = []
        for stage, repeats in enumerate(config.stages):
            for repeat in range(repeats):
                first = stage > 0 and repeat == 0
                out, heads = (2 * dim, 2 * heads) if first else (dim, heads)
                # A stage's first block has the window of the stage before.
                window = config.window_spec[stage - 1 if first else stage]
                if len(self.blocks) in config.global_att_blocks:
                    window = 0
                self.blocks.append(MultiScaleBlock(dim, out, heads, config.mlp_ratio, window))
                dim = out
            self.stage_ends.append(len(self.blocks) - 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.positions(self.patch_embed(x))
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_ends:
                features.append(x.permute(0, 3, 1, 2))
        return features


class ImageEncoderHiera(PyramidEncoder):
    """Hiera with SAM 2's feature pyramid."""

    def __init__(self, config: HieraEncoder, image_size: int, out_chans: int) -> None:
        channels = [config.embed_dim * 2**stage for stage in range(len(config.stages))]
        super().__init__(Hiera(config, image_size), channels, out_chans)
