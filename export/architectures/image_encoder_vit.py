"""SAM's image encoder: a plain ViT with windowed and global attention and decomposed relative
positions (Li et al. 2022, Kirillov et al. 2023).

The same function as the published code, written for static export: no Einsum, no tensor with more than five
axes. Global attention is computed for a tile of query rows at a time: the same result in a fraction of the
memory. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_edge.models.encoders import VitEncoder

from .layers import LayerNorm2d, MLPBlock

# Rows of queries per tile: with 8 rows of 64 tokens, attention adds 706 MB at the peak instead of 3.2 GB.
QUERY_ROWS = 8


def relative_positions(table: Tensor, size: int) -> Tensor:
    """Relative position embeddings along one axis: (2 * size - 1, width) -> (queries, keys, width)."""
    steps = torch.arange(size, device=table.device)
    return table[steps[:, None] - steps[None, :] + size - 1]


class Attention(nn.Module):
    """Multi-head attention over a (size x size) grid with decomposed relative positions."""

    def __init__(self, dim: int, num_heads: int, size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.size = size
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, dim // num_heads))

    def _rows(self, q: Tensor, k: Tensor, v: Tensor, top: int, rows: int) -> Tensor:
        """Attention of the queries in `rows` rows of the grid from `top` on; q is (B, heads, n, width)."""
        size = self.size
        batch, heads, _, width = q.shape
        q = q[:, :, top * size : (top + rows) * size]
        grid = q.reshape(batch * heads, rows, size, width)
        along_h = relative_positions(self.rel_pos_h, size)[top : top + rows].transpose(1, 2)
        along_w = relative_positions(self.rel_pos_w, size).transpose(1, 2)
        bias_h = grid @ along_h
        bias_w = (grid.transpose(1, 2) @ along_w).transpose(1, 2)
        bias = (bias_h[..., :, None] + bias_w[..., None, :]).reshape(batch, heads, rows * size, size * size)
        weights = torch.softmax((q * self.scale) @ k.transpose(2, 3) + bias, dim=-1)
        return weights @ v

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        tokens = height * width
        qkv = self.qkv(x.flatten(1, 2)).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        step = QUERY_ROWS if self.size > 2 * QUERY_ROWS else self.size
        parts = [self._rows(q, k, v, top, min(step, self.size - top)) for top in range(0, self.size, step)]
        out = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        return self.proj(out.transpose(1, 2).flatten(2)).reshape(x.shape)


def window_partition(x: Tensor, window: int) -> Tensor:
    """Partition tokens into windows, padded with zeros: (B, H, W, C) -> (B * windows, window, window, C)."""
    batch, height, width, dim = x.shape
    pad_h, pad_w = -height % window, -width % window
    lines = F.pad(x.flatten(2), (0, pad_w * dim, 0, pad_h))
    rows, columns = (height + pad_h) // window, (width + pad_w) // window
    x = lines.reshape(batch * rows, window, columns, window * dim).transpose(1, 2)
    return x.reshape(batch * rows * columns, window, window, dim)


def window_merge(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Invert `window_partition`, with columns and channels in one axis.

    Args:
        windows: (B * windows, ..., C), the tokens of each window in order.
        window: side of a window in tokens.
        height: H, without padding.
        width: W, without padding.

    Returns:
        (B, H, W * C).
    """
    dim = windows.shape[-1]
    rows, columns = (height + window - 1) // window, (width + window - 1) // window
    x = windows.reshape(-1, columns, window, window * dim).transpose(1, 2)
    return x.reshape(-1, rows * window, columns * window * dim)[:, :height, : width * dim]


class Block(nn.Module):
    """Pre-norm transformer block.

    `window` is the side of an attention window in tokens, 0 for global attention.
    """

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, side: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, window or side)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLPBlock(dim, mlp_dim)

    def _windowed(self, x: Tensor) -> Tensor:
        attended = self.attn(window_partition(x, self.window))
        return window_merge(attended, self.window, *x.shape[1:3]).reshape(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        # OpenVINO would reorder tensors with four axes for all operators but convolutions.
        shape, tokens = x.shape, x.flatten(1, 2)
        normed = self.norm1(tokens).reshape(shape)
        tokens = tokens + (self._windowed(normed) if self.window else self.attn(normed)).flatten(1, 2)
        return (tokens + self.mlp(self.norm2(tokens))).reshape(shape)


class PatchEmbed(nn.Module):
    """Embed patches: (B, 3, S, S) -> (B, S / patch, S / patch, dim)."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class ImageEncoderViT(nn.Module):
    """(B, 3, S, S) normalised RGB -> (B, out_chans, S / 16, S / 16).

    `early_channels` is the number of channels of the early features that SAM-HQ's decoder reads.
    """

    def __init__(self, config: VitEncoder, image_size: int, out_chans: int) -> None:
        super().__init__()
        side = image_size // config.patch_size
        self.early_channels = config.embed_dim
        self.early_block = min(config.global_attn_indexes)
        self.patch_embed = PatchEmbed(config.patch_size, config.embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(
                config.embed_dim,
                config.num_heads,
                config.mlp_dim or config.embed_dim * config.mlp_ratio,
                side,
                0 if i in config.global_attn_indexes else config.window_size,
            )
            for i in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.embed_dim, out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.with_early_features(x)[0]

    def with_early_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings and early features, after the first block with global attention.

        The early features are (B, early_channels, S / 16, S / 16).
        """
        patches = self.patch_embed(x)
        # With three axes, for the same reason as in the blocks.
        tokens = patches.flatten(1, 2) + self.pos_embed.flatten(1, 2)
        x = early = tokens.reshape(patches.shape)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == self.early_block:
                early = x
        return self.neck(x.permute(0, 3, 1, 2)), early.permute(0, 3, 1, 2)
