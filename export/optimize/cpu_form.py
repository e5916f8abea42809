"""Exact rewrites for CPUs, of SAM's ViT and MobileSAM's TinyViT: the same function with less work and memory.

- Windowed layers compute queries, keys, values and projections of the image's tokens only, and not of the
  padding around them, which takes part in attention as keys. A constant added to all keys cancels in the
  softmax, and one added to all values passes through attention: both are moved such that what padding gives
  is zero, and windows are padded with zeros.
- Attention is computed in chunks whose scores stay in the processor's cache: a few windows, or one head and a
  few rows of queries, at a time.
- The inverted residuals of TinyViT's first stage, whose tensors are largest, are computed some rows of the
  picture at a time.
- Queries come scaled, from scaled weights; biases of keys are left out; queries, keys and values are products
  of their own, so that nothing has to be split.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..architectures import image_encoder_tiny_vit, image_encoder_vit
from ..architectures.image_encoder_vit import relative_positions
from ..architectures.model import SamModel
from .decoder import reassociate
from .fuse import copy_of
from .tiling import FLOAT_MB, ConvolutionsByRows, chunks

# Megabytes of scores at a time: 8 rows of 64 queries, of one head, with 64 x 64 keys in FP32.
CHUNK_MB = 8.0


def cpu_form(sam: SamModel, chunk_mb: float = CHUNK_MB) -> SamModel:
    """A copy of `sam` in the form above, its decoder reassociated; `sam` is fused (see `fuse`).

    Args:
        sam: left as it is.
        chunk_mb: how large the scores of attention may be at a time.
    """
    sam = reassociate(sam)
    encoder = copy_of(sam.image_encoder)
    for block in encoder.modules():
        if isinstance(block, image_encoder_vit.Block):
            block.attn = _vit_attention(block, chunk_mb)  # type: ignore[assignment]
            block.window = 0
        elif isinstance(block, image_encoder_tiny_vit.Block):
            block.attn = _tiny_vit_attention(block, chunk_mb)  # type: ignore[assignment]
            block.window = 0
        elif isinstance(block, image_encoder_tiny_vit.Stage):
            _residuals_by_rows(block, chunk_mb)
    sam.image_encoder = encoder
    return sam.requires_grad_(False)


def openvino_form(sam: SamModel, chunk_mb: float = CHUNK_MB) -> SamModel:
    """A copy of `sam`, which is fused, in the form that OpenVINO computes fastest, for its encoder only.

    OpenVINO fuses attention by itself. TinyViT's convolutions whose tensors are largest go by rows.
    """
    found = copy_of(sam)
    for module in list(found.image_encoder.modules()):
        if isinstance(module, image_encoder_tiny_vit.PatchEmbed):
            first, _, second = module.seq
            module.seq = ConvolutionsByRows((first, second), chunk_mb)  # type: ignore[assignment]
        elif isinstance(module, image_encoder_tiny_vit.Stage):
            _residuals_by_rows(module, chunk_mb)
            if (merging := module.downsample) is not None:
                layers = merging.conv1, merging.conv2, merging.conv3
                module.downsample = ConvolutionsByRows(layers, chunk_mb)  # type: ignore[assignment]
    return found.requires_grad_(False)


def _residuals_by_rows(stage: image_encoder_tiny_vit.Stage, chunk_mb: float) -> None:
    """Let a stage's inverted residuals, where it has any, go by rows."""
    for index, one in enumerate(stage.blocks):
        if isinstance(one, image_encoder_tiny_vit.InvertedResidual):
            layers = one.conv1, one.conv2, one.conv3
            stage.blocks[index] = ConvolutionsByRows(layers, chunk_mb, residual=True)


def has_form(sam: SamModel) -> bool:
    """Whether the encoder's form for CPUs is another than its own."""
    kinds = image_encoder_vit.Block, image_encoder_tiny_vit.Block
    return any(isinstance(module, kinds) for module in sam.image_encoder.modules())


class Projections(nn.Module):
    """Queries, scaled, keys and values of tokens, and what is made of the values that attention finds.

    Args:
        qkv: (dim -> 3 dim), sorted into queries, keys and values.
        proj: (dim -> dim).
        heads: of the attention.
        padding: (dim,) the token that padding is, ahead of `qkv`.
        scale: of the queries that `qkv` gives.
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
        # What padding gives is taken off every token's keys and values.
        key_bias, value_bias = -weights[1] @ padding, -weights[2] @ padding
        self.q = _linear(weights[0] * scale, biases[0] * scale)
        self.k = _linear(weights[1], key_bias)
        self.v = _linear(weights[2], value_bias)
        weight, bias = proj.weight.detach().double(), proj.bias.detach().double()
        self.proj = _linear(weight, bias + weight @ (biases[2] - value_bias))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bool(bias.any()))
    linear.weight.data = weight.float()
    if linear.bias is not None:
        linear.bias.data = bias.float()
    return linear


class Bias(nn.Module):
    """What is added to the scores: a learned bias, (heads, n, n) of n tokens."""

    bias: Tensor

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("bias", bias.detach().clone())

    def forward(self, q: Tensor) -> Tensor:
        """Whatever the queries are: (heads, n, n)."""
        return self.bias


class RelativePositions(nn.Module):
    """SAM's decomposed relative positions, for queries that come scaled by `scale`."""

    along_h: Tensor
    along_w: Tensor

    def __init__(self, attention: image_encoder_vit.Attention, scale: float) -> None:
        super().__init__()
        self.size = attention.size
        for name, table in (("along_h", attention.rel_pos_h), ("along_w", attention.rel_pos_w)):
            positions = relative_positions(table.detach().double() / scale, attention.size)
            self.register_buffer(name, positions.transpose(1, 2).float().contiguous())

    def parts(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """(B, size * size, width) -> what to add along the keys' rows and columns, (B, size * size, size)."""
        grid = q.reshape(len(q), self.size, self.size, -1)
        rows = grid @ self.along_h
        columns = (grid.transpose(1, 2) @ self.along_w).transpose(1, 2)
        shape = len(q), self.size * self.size, self.size
        return rows.reshape(shape), columns.reshape(shape)

    def forward(self, q: Tensor) -> Tensor:
        """(windows, heads, n, width) -> (windows, heads, n, n)."""
        windows, heads, tokens, _ = q.shape
        return spread(*self.parts(q.flatten(0, 1))).reshape(windows, heads, tokens, tokens)


def spread(rows: Tensor, columns: Tensor) -> Tensor:
    """(B, n, size) of keys' rows and of their columns -> (B, n, size * size)."""
    return (rows[..., :, None] + columns[..., None, :]).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """(..., n, width) scaled queries, (..., m, width) keys and values, (..., n, m) -> (..., n, width)."""
    return torch.softmax(q @ k.transpose(-2, -1) + bias, dim=-1) @ v


class WindowedAttention(nn.Module):
    """Attention within windows of `window` x `window` tokens: (B, H, W, dim) -> (B, H, W, dim)."""

    def __init__(
        self, norm: nn.Module, projections: Projections, bias: nn.Module, window: int, chunk_mb: float
    ) -> None:
        super().__init__()
        self.norm, self.projections, self.bias, self.window = norm, projections, bias, window
        self.chunk_mb = chunk_mb

    def _windows(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B * rows of windows, windows in a row, heads, n, width)."""
        (batch, height, width, dim), size = x.shape, self.window
        x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
        rows, columns, heads = x.shape[1] // size, x.shape[2] // size, self.projections.heads
        x = x.reshape(batch * rows, size, columns, size, heads, dim // heads).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(batch * rows, columns, heads, size * size, dim // heads)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        (batch, height, width, dim), size = x.shape, self.window
        normed, layers = self.norm(x), self.projections
        q, k, v = (self._windows(layer(normed)) for layer in (layers.q, layers.k, layers.v))
        rows, columns, heads, tokens, _ = q.shape
        found = []
        for part in chunks(rows, columns * heads * tokens**2 * FLOAT_MB, self.chunk_mb):
            queries, keys, values = (t[part].flatten(0, 1) for t in (q, k, v))
            found.append(attend(queries, keys, values, self.bias(queries)))
        out = torch.cat(found) if len(found) > 1 else found[0]
        out = out.reshape(rows, columns, heads, size, size, -1).permute(0, 3, 1, 4, 2, 5)
        return layers.proj(out.reshape(batch, -1, columns * size, dim)[:, :height, :width])


class GlobalAttention(nn.Module):
    """Attention of all tokens to all: (B, H, W, dim) -> (B, H, W, dim)."""

    def __init__(self, projections: Projections, positions: RelativePositions, chunk_mb: float) -> None:
        super().__init__()
        self.projections, self.positions, self.chunk_mb = projections, positions, chunk_mb

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, height, width, dim = x.shape
        layers, tokens = self.projections, height * width

        def by_head(y: Tensor) -> Tensor:
            return y.reshape(batch, tokens, layers.heads, -1).transpose(1, 2).flatten(0, 1)

        q, k, v = (by_head(layer(x)) for layer in (layers.q, layers.k, layers.v))
        rows, columns = self.positions.parts(q)
        heads_mb = tokens**2 * FLOAT_MB
        found = []
        for heads in chunks(len(q), heads_mb, self.chunk_mb):
            parts = []
            for queries in chunks(height, heads_mb * (heads.stop - heads.start) / height, self.chunk_mb):
                at = slice(queries.start * width, queries.stop * width)
                bias = spread(rows[heads, at], columns[heads, at])
                parts.append(attend(q[heads, at], k[heads], v[heads], bias))
            found.append(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])
        out = torch.cat(found) if len(found) > 1 else found[0]
        out = out.reshape(batch, layers.heads, tokens, -1).transpose(1, 2)
        return layers.proj(out.reshape(batch, height, width, dim))


def _vit_attention(block: image_encoder_vit.Block, chunk_mb: float) -> nn.Module:
    attention = block.attn
    # Padded behind the norm.
    nothing = torch.zeros(attention.qkv.in_features)
    projections = Projections(attention.qkv, attention.proj, attention.num_heads, nothing, attention.scale)
    positions = RelativePositions(attention, attention.scale)
    if block.window:
        return WindowedAttention(nn.Identity(), projections, positions, block.window, chunk_mb)
    return GlobalAttention(projections, positions, chunk_mb)


def _tiny_vit_attention(block: image_encoder_tiny_vit.Block, chunk_mb: float) -> nn.Module:
    attention = block.attn
    assert isinstance(attention, image_encoder_tiny_vit.FusedAttention)
    # Padded ahead of the norm, which makes its bias of zeros.
    norm, proj = attention.norm, attention.proj
    assert isinstance(norm, nn.LayerNorm) and isinstance(proj, nn.Linear)
    projections = Projections(attention.qkv, proj, attention.num_heads, norm.bias.detach())
    return WindowedAttention(norm, projections, Bias(attention.bias), block.window, chunk_mb)
