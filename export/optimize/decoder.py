"""Building blocks of the reassociated mask decoder: the same function with a fraction of the arithmetic.

In SAM's decoder (Kirillov et al. 2023) a handful of tokens attends to thousands of image tokens, and these to
the tokens. Most of its time goes into projecting the image tokens. Matmuls are associative, so each of these
projections can be moved onto the few tokens. With X the image tokens, for each head:

- tokens to image, scores: q (X Wk)^T = (q Wk^T) X^T; a bias of the keys adds the same to every key's score
  and cancels in the softmax;
- tokens to image, values: A (X Wv) = (A X) Wv; a bias of the values passes through, as each row of A sums
  to 1;
- image to tokens, scores: (X Wq) k^T = X (Wq k^T);
- image to tokens, outputs: (A v) Wo = A (v Wo).

The upscaling's transposed convolutions, whose kernels are as wide as their strides, are matmuls followed by a
pixel shuffle. Each is computed as two matmuls, one for the upper and one for the lower pixels, so that a line
of pixels comes out in the order of the mask; only whole lines are shuffled, once, at the end, where 4 masks
are left of 32 channels. Everything in between is one row per pixel, the best layout for LayerNorm and matmul.
The hypernetworks of the four masks are computed in one batch.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Image tokens upscaled at a time, rounded down to whole lines: 2 MB for the widest rows of one prompt.
TILE_TOKENS = 1024


class ProjectedAttention(Protocol):
    """Multi-head attention with one linear layer each for queries, keys, values and output."""

    num_heads: int
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    out_proj: nn.Linear


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """(heads * width, dim) -> (heads, width, dim)."""
    return weight.detach().reshape(heads, -1, weight.shape[1]).clone()


class TokenToImageAttention(nn.Module):
    """Attention of a few tokens to many image tokens, which are never projected."""

    keys: Tensor
    values: Tensor

    def __init__(self, attention: ProjectedAttention) -> None:
        super().__init__()
        self.num_heads = heads = attention.num_heads
        self.q_proj = attention.q_proj
        self.out_proj = copy.deepcopy(attention.out_proj)
        self.out_proj.bias.data += attention.out_proj.weight.data @ attention.v_proj.bias.data
        keys = _by_head(attention.k_proj.weight, heads)
        self.register_buffer("keys", keys * keys.shape[1] ** -0.5)
        self.register_buffer("values", _by_head(attention.v_proj.weight, heads).transpose(1, 2).contiguous())

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Tokens (N, T, dim), image tokens (N or 1, P, dim) twice -> (N, T, dim)."""
        n, tokens, dim = q.shape
        heads = self.q_proj(q).reshape(n, tokens, self.num_heads, -1).transpose(1, 2)
        queries = (heads @ self.keys).reshape(n, self.num_heads * tokens, dim)
        weights = torch.softmax(queries @ k.transpose(1, 2), dim=-1)
        attended = (weights @ v).reshape(n, self.num_heads, tokens, dim) @ self.values
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class ImageToTokenAttention(nn.Module):
    """Attention of many image tokens, which are never projected, to a few tokens."""

    queries: Tensor
    query_bias: Tensor
    outputs: Tensor

    def __init__(self, attention: ProjectedAttention) -> None:
        super().__init__()
        self.num_heads = heads = attention.num_heads
        self.k_proj, self.v_proj = attention.k_proj, attention.v_proj
        self.out_bias = attention.out_proj.bias
        queries = _by_head(attention.q_proj.weight, heads)
        scale = queries.shape[1] ** -0.5
        self.register_buffer("queries", queries * scale)
        bias = attention.q_proj.bias.detach().reshape(heads, -1, 1) * scale
        self.register_buffer("query_bias", bias)
        outputs = _by_head(attention.out_proj.weight.t(), heads)
        self.register_buffer("outputs", outputs)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Image tokens (N or 1, P, dim), tokens (N, T, dim) twice -> (N, P, dim)."""
        n, tokens, dim = k.shape
        count = self.num_heads * tokens
        keys = self.k_proj(k).reshape(n, tokens, self.num_heads, -1).transpose(1, 2)
        projected_keys = (keys @ self.queries).reshape(n, count, dim)
        bias = (keys @ self.query_bias).reshape(n, 1, count)
        scores = q @ projected_keys.transpose(1, 2) + bias
        weights = torch.softmax(scores.reshape(n, -1, self.num_heads, tokens), dim=-1)
        values = self.v_proj(v).reshape(n, tokens, self.num_heads, -1).transpose(1, 2)
        # The weights of each head sum to 1, so that each contributes its share of the bias.
        outputs = (values @ self.outputs + self.out_bias / self.num_heads).reshape(n, count, dim)
        return weights.reshape(n, -1, count) @ outputs


class Upscaler(nn.Module):
    """SAM's `output_upscaling` and its product with the mask weights, computed on one row per pixel.

    Takes any number of lines of image tokens, from the top. `tile_tokens` of them are upscaled at a time, so
    that what is between the layers stays in the processor's cache; None upscales all of them at once.

    Args:
        upscaling: transposed convolution, LayerNorm2d, GELU, transposed convolution, GELU.
        width: image tokens in a line.
    """

    def __init__(self, upscaling: nn.Sequential, width: int) -> None:
        super().__init__()
        self.width = width
        self.tile_tokens: int | None = max(TILE_TOKENS // width, 1) * width
        layers: Any = upscaling
        first, self.norm, _, second, _ = layers
        self.first, self.second = LineMatmuls(first), LineMatmuls(second)

    def forward(self, image_tokens: Tensor, mask_weights: Tensor) -> Tensor:
        """(N, h * w, dim) after the transformer, (N, M, dim / 8) -> low_res_masks (N, M, 4h, 4w)."""
        tiles = torch.split(image_tokens, self.tile_tokens, 1) if self.tile_tokens else (image_tokens,)
        masks = [self._masks(tokens, mask_weights) for tokens in tiles]
        return torch.cat(masks, 2) if len(masks) > 1 else masks[0]

    def _masks(self, image_tokens: Tensor, mask_weights: Tensor) -> Tensor:
        """Upscale one tile of image tokens."""
        n, tokens, _ = image_tokens.shape
        norm: Any = self.norm
        width = norm.weight.shape
        x = self.first(image_tokens[:, None]).reshape(n, 2, 1, 2 * tokens, *width)
        x = F.gelu(F.layer_norm(x, width, norm.weight, norm.bias, norm.eps))
        rows = F.gelu(self.second(x).reshape(n, 2, 2, 4 * tokens, -1))
        pixels = mask_weights[:, None, None] @ rows.transpose(3, 4)
        lines = pixels.reshape(n, 4, -1, tokens // self.width, 4 * self.width)
        return lines.permute(0, 2, 3, 1, 4).reshape(n, mask_weights.shape[1], -1, 4 * self.width)


class LineMatmuls(nn.Module):
    """A transposed convolution of kernel 2 and stride 2, as one matmul for each of the two output lines."""

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.ConvTranspose2d) -> None:
        super().__init__()
        weight, bias = convolution.weight.detach(), convolution.bias
        assert bias is not None
        self.register_buffer("weight", weight.permute(2, 0, 3, 1).flatten(2).contiguous())
        self.register_buffer("bias", bias.detach().repeat(2))

    def forward(self, x: Tensor) -> Tensor:
        """(..., 1, P, in channels) -> (..., 2, P, 2 * out channels)."""
        return x @ self.weight + self.bias


class Hypernetworks(nn.Module):
    """SAM's `output_hypernetworks_mlps` in one batch: each layer is a matmul with one matrix per mask."""

    def __init__(self, networks: nn.ModuleList) -> None:
        super().__init__()
        layers: Any = zip(*(network.layers for network in networks), strict=True)
        self.count = 0
        for same in layers:
            weights = torch.stack([layer.weight.detach().t() for layer in same])
            self.register_buffer(f"weight_{self.count}", weights.contiguous())
            biases = torch.stack([layer.bias.detach()[None] for layer in same])
            self.register_buffer(f"bias_{self.count}", biases)
            self.count += 1

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, M, dim) mask tokens -> (N, M, dim / 8)."""
        x = tokens.transpose(0, 1)
        for index in range(self.count):
            x = torch.relu(x) if index else x
            x = x @ getattr(self, f"weight_{index}") + getattr(self, f"bias_{index}")
        return x.transpose(0, 1)
