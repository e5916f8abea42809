"""Exact rewrites of self-attention for CPUs: the same function with less arithmetic and less memory.

- Queries, keys, values and the output projection are computed for the image's tokens only, and not for the
  padding around them, which takes part in attention as keys. A constant added to every key cancels in the
  softmax, and a constant added to every value passes through attention. Both constants are moved such that
  padding projects to zero, so windows are padded with zeros after the projections.
- Attention is computed in tiles whose scores stay in the processor's cache: a few windows, or one head and a
  few rows of queries, at a time.
- The softmax scale is folded into the query weights, key biases are dropped, and queries, keys and values
  are separate matmuls, so that no tensor has to be split.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .tiling import MB_PER_FLOAT, tile_slices


class Projections(nn.Module):
    """Linear layers for scaled queries, keys, values and the attention's output.

    Args:
        qkv: (dim -> 3 dim), its outputs ordered as queries, keys, values.
        proj: (dim -> dim), the output projection.
        heads: number of attention heads.
        padding: (dim,) the input of `qkv` at padded positions.
        scale: factor folded into the queries.
    """

    def __init__(
        self, qkv: nn.Linear, proj: nn.Linear, heads: int, padding: Tensor, scale: float = 1.0
    ) -> None:
        super().__init__()
        dim = qkv.in_features
        self.heads = heads
        weights = qkv.weight.detach().double().reshape(3, dim, dim)
        biases = qkv.bias.detach().double().reshape(3, dim)
        padding = padding.double()
        # Subtracting the projection of a padding token from all keys and values makes padding zero.
        key_bias, value_bias = -weights[1] @ padding, -weights[2] @ padding
        self.q = _linear(weights[0] * scale, biases[0] * scale)
        self.k = _linear(weights[1], key_bias)
        self.v = _linear(weights[2], value_bias)
        weight, bias = proj.weight.detach().double(), proj.bias.detach().double()
        self.proj = _linear(weight, bias + weight @ (biases[2] - value_bias))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """An FP32 linear layer, without bias where `bias` is all zeros."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bool(bias.any()))
    linear.weight.data = weight.float()
    if linear.bias is not None:
        linear.bias.data = bias.float()
    return linear


class LearnedBias(nn.Module):
    """A learned bias added to the attention scores, (heads, n, n) for n tokens."""

    bias: Tensor

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("bias", bias.detach().clone())

    def forward(self, q: Tensor) -> Tensor:
        """Return the bias, (heads, n, n); the queries do not matter."""
        return self.bias


class RelativePositions(nn.Module):
    """Decomposed relative positions (Li et al. 2022): a bias that depends on the queries.

    Args:
        along_h: (size, width, size): for each row of queries, the embedding of each row of keys.
        along_w: (size, width, size): the same for columns.
    """

    along_h: Tensor
    along_w: Tensor

    def __init__(self, along_h: Tensor, along_w: Tensor) -> None:
        super().__init__()
        self.size = len(along_h)
        self.register_buffer("along_h", along_h)
        self.register_buffer("along_w", along_w)

    def parts(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """(B, size * size, width) queries -> biases by row and by column of keys, (B, size * size, size)."""
        grid = q.reshape(len(q), self.size, self.size, -1)
        rows = grid @ self.along_h
        columns = (grid.transpose(1, 2) @ self.along_w).transpose(1, 2)
        shape = len(q), self.size * self.size, self.size
        return rows.reshape(shape), columns.reshape(shape)

    def forward(self, q: Tensor) -> Tensor:
        """(windows, heads, n, width) queries -> (windows, heads, n, n) bias."""
        windows, heads, tokens, _ = q.shape
        return combine_axes(*self.parts(q.flatten(0, 1))).reshape(windows, heads, tokens, tokens)


def combine_axes(rows: Tensor, columns: Tensor) -> Tensor:
    """Biases by row and by column of keys, (B, n, size) each -> their sum by key, (B, n, size * size)."""
    return (rows[..., :, None] + columns[..., None, :]).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention of scaled queries.

    Args:
        q: (..., n, width), scaled.
        k: (..., m, width).
        v: (..., m, width).
        bias: (..., n, m), added to the scores.

    Returns:
        (..., n, width).
    """
    return torch.softmax(q @ k.transpose(-2, -1) + bias, dim=-1) @ v


class WindowedAttention(nn.Module):
    """Attention within windows, a tile of windows at a time: (B, H, W, dim) -> (B, H, W, dim).

    Args:
        norm: applied to the tokens before the projections.
        projections: the linear layers.
        bias: maps (windows, heads, n, width) queries to what is added to their scores.
        window: side of a window in tokens.
        tile_mb: tile size in MB for attention scores.
    """

    def __init__(
        self, norm: nn.Module, projections: Projections, bias: nn.Module, window: int, tile_mb: float
    ) -> None:
        super().__init__()
        self.norm, self.projections, self.bias, self.window = norm, projections, bias, window
        self.tile_mb = tile_mb

    def _windows(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B * rows of windows, windows in a row, heads, n, width)."""
        (batch, height, width, dim), size = x.shape, self.window
        x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
        rows, columns, heads = x.shape[1] // size, x.shape[2] // size, self.projections.heads
        x = x.reshape(batch * rows, size, columns, size, heads, dim // heads).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(batch * rows, columns, heads, size * size, dim // heads)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        (batch, height, width, dim), size = x.shape, self.window
        normed, layers = self.norm(x), self.projections
        q, k, v = (self._windows(layer(normed)) for layer in (layers.q, layers.k, layers.v))
        rows, columns, heads, tokens, _ = q.shape
        tiles = []
        for tile in tile_slices(rows, columns * heads * tokens**2 * MB_PER_FLOAT, self.tile_mb):
            queries, keys, values = (t[tile].flatten(0, 1) for t in (q, k, v))
            tiles.append(attend(queries, keys, values, self.bias(queries)))
        out = torch.cat(tiles) if len(tiles) > 1 else tiles[0]
        out = out.reshape(rows, columns, heads, size, size, -1).permute(0, 3, 1, 4, 2, 5)
        return layers.proj(out.reshape(batch, -1, columns * size, dim)[:, :height, :width])


class GlobalAttention(nn.Module):
    """Attention of all tokens to all tokens, tiled by heads and rows of queries: (B, H, W, dim) -> the same.

    Args:
        projections: the linear layers.
        positions: the relative positions of the (H x W) grid.
        tile_mb: tile size in MB for attention scores.
    """

    def __init__(self, projections: Projections, positions: RelativePositions, tile_mb: float) -> None:
        super().__init__()
        self.projections, self.positions, self.tile_mb = projections, positions, tile_mb

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        batch, height, width, dim = x.shape
        layers, tokens = self.projections, height * width

        def by_head(y: Tensor) -> Tensor:
            return y.reshape(batch, tokens, layers.heads, -1).transpose(1, 2).flatten(0, 1)

        q, k, v = (by_head(layer(x)) for layer in (layers.q, layers.k, layers.v))
        rows, columns = self.positions.parts(q)
        mb_per_head = tokens**2 * MB_PER_FLOAT
        tiles = []
        for heads in tile_slices(len(q), mb_per_head, self.tile_mb):
            parts = []
            mb_per_row = mb_per_head * (heads.stop - heads.start) / height
            for queries in tile_slices(height, mb_per_row, self.tile_mb):
                at = slice(queries.start * width, queries.stop * width)
                bias = combine_axes(rows[heads, at], columns[heads, at])
                parts.append(attend(q[heads, at], k[heads], v[heads], bias))
            tiles.append(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])
        out = torch.cat(tiles) if len(tiles) > 1 else tiles[0]
        out = out.reshape(batch, layers.heads, tokens, -1).transpose(1, 2)
        return layers.proj(out.reshape(batch, height, width, dim))
