"""Feature pyramid of SAM 2 and its descendants (Lin et al. 2017, Ravi et al. 2024).

Two of its levels are features for the mask decoder. The published code projects these to fewer channels once
per image, by `conv_s0` and `conv_s1`, and adds `no_mem_embed` to the embeddings of an image without preceding
video frames. All three belong to the decoder or the model there, and to the image encoder's neck in sam-edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Levels = tuple[Tensor, Tensor, Tensor]


class Pyramid(nn.Module):
    """Features with strides 4, 8, 16, 32 -> embeddings with stride 16, features with stride 4 and stride 8.

    `convs` has one convolution per level, the coarsest first. The coarsest level is added to the next.
    """

    def __init__(self, convs: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)

    def forward(self, features: Sequence[Tensor]) -> Levels:
        """Four features (B, C, h, w), the finest first -> embeddings, stride 4, stride 8."""
        coarsest, embeddings, eighth, quarter = (
            conv(level) for conv, level in zip(self.convs, reversed(features), strict=True)
        )
        return embeddings + F.interpolate(coarsest, scale_factor=2.0, mode="nearest"), quarter, eighth


class PyramidNeck(Pyramid):
    """`Pyramid` with the projections of the finer levels and `no_mem_embed`.

    Args:
        channels: channels of the trunk's features, the finest first.
        dim: channels of the embeddings; the finer levels have dim / 8 and dim / 4.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__([nn.Conv2d(width, dim, 1) for width in reversed(channels)])
        self.conv_s0 = nn.Conv2d(dim, dim // 8, 1)
        self.conv_s1 = nn.Conv2d(dim, dim // 4, 1)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, features: Sequence[Tensor]) -> Levels:
        embeddings, quarter, eighth = super().forward(features)
        embeddings = embeddings + self.no_mem_embed.reshape(1, -1, 1, 1)
        return embeddings, self.conv_s0(quarter), self.conv_s1(eighth)

    def fuse(self) -> Pyramid:
        """Merge consecutive 1 x 1 convolutions, to skip the wide feature maps between them."""
        convs: list[Any] = list(self.convs)
        coarsest, sixteenth, eighth, quarter = convs
        eighth, quarter = merge_pointwise(eighth, self.conv_s1), merge_pointwise(quarter, self.conv_s0)
        bias = sixteenth.bias + self.no_mem_embed.flatten()
        return Pyramid([coarsest, pointwise(sixteenth.weight, bias), eighth, quarter])


def merge_pointwise(first: Any, second: Any) -> nn.Conv2d:
    """Merge two consecutive 1 x 1 convolutions into one."""
    a, b = first.weight.double().flatten(1), second.weight.double().flatten(1)
    bias = b @ first.bias.double() + second.bias.double()
    return pointwise((b @ a)[:, :, None, None].to(first.weight.dtype), bias.to(first.weight.dtype))


def pointwise(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Make a 1 x 1 convolution from its parameters."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    return conv


class PyramidEncoder(nn.Module):
    """An image encoder with a feature pyramid.

    (B, 3, S, S) normalised RGB -> image_embeddings (B, dim, S / 16, S / 16), high_res_feats_0 (B, dim / 8,
    S / 4, S / 4) and high_res_feats_1 (B, dim / 4, S / 8, S / 8).

    Args:
        trunk: returns features with strides 4, 8, 16 and 32.
        channels: channels of these features.
        dim: channels of the embeddings.
    """

    def __init__(self, trunk: nn.Module, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = PyramidNeck(channels, dim)

    def forward(self, x: Tensor) -> Levels:
        levels: Levels = self.neck(self.trunk(x))
        return levels
