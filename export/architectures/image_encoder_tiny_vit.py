"""MobileSAM's image encoder: TinyViT (Wu et al. 2022; Zhang et al. 2023) up to stride 16.

One stage of inverted residuals, then three stages whose blocks have windowed attention, with one learned bias
per distance, and a local convolution. Parameter names are those of the published checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_edge.models.encoders import TinyVitEncoder

from .image_encoder_vit import window_merge, window_partition
from .layers import ConvNorm, LayerNorm2d


class InvertedResidual(nn.Module):
    """Inverted residual (Sandler et al. 2018) with GELU, also after the sum."""

    def __init__(self, dim: int, expand: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, dim * expand)
        self.conv2 = ConvNorm(dim * expand, dim * expand, 3, groups=dim * expand)
        self.conv3 = ConvNorm(dim * expand, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(y))


class PatchMerging(nn.Module):
    """Widen the tokens between two stages and, with `stride` 2, reduce them to a quarter."""

    def __init__(self, dim: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, out)
        self.conv2 = ConvNorm(out, out, 3, stride, groups=out)
        self.conv3 = ConvNorm(out, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention of scaled queries.

    Args:
        q, k, v: (B, heads, n, width).
        bias: (heads, n, n), added to the scores.

    Returns:
        (B, n, heads * width).
    """
    weights = torch.softmax(q @ k.transpose(2, 3) + bias, dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


class FusedAttention(nn.Module):
    """`Attention` with its bias expanded to (heads, n, n).

    Its `qkv` returns scaled queries, then keys, then values, each of all heads.
    """

    bias: Tensor

    def __init__(self, norm: nn.Module, qkv: nn.Linear, proj: nn.Module, bias: Tensor) -> None:
        super().__init__()
        self.norm, self.qkv, self.proj = norm, qkv, proj
        self.num_heads = bias.shape[0]
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, dim) -> (B, n, dim)."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(attend(q, k, v, self.bias))


class Attention(nn.Module):
    """Multi-head attention within a window of (size x size) tokens.

    Its `qkv` returns queries, keys and values of the first head, then of the second, and so on.
    """

    def __init__(self, dim: int, num_heads: int, size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.size = size
        self.scale = (dim // num_heads) ** -0.5
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, size * size))

    def bias(self) -> Tensor:
        """Bias of each pair of tokens, (heads, n, n), by their distance along both axes."""
        steps = torch.arange(self.size, device=self.attention_biases.device)
        apart = (steps[:, None] - steps).abs()
        index = (self.size * apart)[:, None, :, None] + apart[None, :, None, :]
        return self.attention_biases[:, index.reshape(self.size**2, self.size**2)]

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, dim) -> (B, n, dim)."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, tokens, self.num_heads, 3, dim // self.num_heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        return self.proj(attend(q * self.scale, k, v, self.bias()))

    def fuse(self) -> FusedAttention:
        """Reorder `qkv` as in SAM's attention, fold the scale into the queries and expand the bias."""
        rows = torch.arange(self.qkv.out_features).reshape(self.num_heads, 3, -1).transpose(0, 1).flatten()
        qkv = nn.Linear(self.qkv.in_features, self.qkv.out_features)
        qkv.weight.data, qkv.bias.data = self.qkv.weight[rows].detach(), self.qkv.bias[rows].detach()
        queries = slice(qkv.in_features)
        qkv.weight.data[queries] *= self.scale
        qkv.bias.data[queries] *= self.scale
        return FusedAttention(self.norm, qkv, self.proj, self.bias().detach())


class Mlp(nn.Module):
    """LayerNorm, linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    """Windowed attention, a depthwise convolution across windows, MLP."""

    def __init__(self, dim: int, num_heads: int, window: int, mlp_ratio: int) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(dim, num_heads, window)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = Mlp(dim, dim * mlp_ratio)

    def _windowed(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W * dim)."""
        # Unlike SAM's, windows are padded before the norm: padding takes part in attention as its bias.
        attended = self.attn(window_partition(x, self.window).flatten(1, 2))
        return window_merge(attended, self.window, *x.shape[1:3])

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) -> (B, dim, H, W)."""
        # OpenVINO keeps tensors with four axes in the layout of convolutions and would reorder them for all
        # other operators. With three axes, (B, H, W * dim) or (B, H * W, dim), tokens stay rows.
        image = x.permute(0, 2, 3, 1)
        shape, lines = image.shape, image.flatten(2)
        image = lines.reshape(shape)
        lines = lines + (self._windowed(image) if self.window else self.attn(image).flatten(2))
        x = self.local_conv(lines.reshape(shape).permute(0, 3, 1, 2))
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
        tokens = tokens + self.mlp(tokens)
        return tokens.reshape(shape).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks, followed by patch merging except in the last stage."""

    def __init__(self, blocks: list[nn.Module], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    """Two strided convolutions: (B, 3, S, S) -> (B, dim, S / 4, S / 4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, dim // 2, 3, 2), nn.GELU(), ConvNorm(dim // 2, dim, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class ImageEncoderTinyViT(nn.Module):
    """(B, 3, S, S) normalised RGB -> (B, out_chans, S / 16, S / 16).

    `early_channels` is the number of channels of the early features that SAM-HQ's decoder reads.
    """

    def __init__(self, config: TinyVitEncoder, image_size: int, out_chans: int) -> None:
        super().__init__()
        dims = config.embed_dims
        self.early_channels = dims[2]
        self.patch_embed = PatchEmbed(dims[0])
        stages: list[Stage] = []
        for i, (dim, depth) in enumerate(zip(dims, config.depths, strict=True)):
            blocks: list[nn.Module] = [
                InvertedResidual(dim, config.expand)
                if i == 0
                else Block(dim, config.num_heads[i], config.window_sizes[i], config.mlp_ratio)
                for _ in range(depth)
            ]
            # TinyViT's last merging leads to stride 32; MobileSAM's keeps stride 16.
            merging = PatchMerging(dim, dims[i + 1], 2 if i < 2 else 1) if i + 1 < len(dims) else None
            stages.append(Stage(blocks, merging))
        self.layers = nn.ModuleList(stages)
        self.neck = nn.Sequential(
            nn.Conv2d(dims[-1], out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.with_early_features(x)[0]

    def with_early_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings and early features, (B, early_channels, S / 16, S / 16), of the second stage."""
        x = early = self.patch_embed(x)
        for index, stage in enumerate(self.layers):
            x = stage(x)
            if index == 1:
                early = x
        return self.neck(x), early
