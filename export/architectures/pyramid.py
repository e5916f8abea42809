"""What SAM 2 and its descendants put behind their trunk: a feature pyramid (Ravi et al. 2024).

Two of its levels are features for the mask decoder. The published decoder narrows these once per image, by
`conv_s0` and `conv_s1`, and adds `no_mem_embed` to the embeddings of a picture that no video leads up to;
here all three are the neck's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Levels = tuple[Tensor, Tensor, Tensor]


class Pyramid(nn.Module):
    """Features of strides 4, 8, 16 and 32 -> embeddings of stride 16, features of stride 4 and of stride 8.

    One convolution a level in `convs`, the coarsest first; it is added to the next.
    """

    def __init__(self, convs: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)

    def forward(self, features: Sequence[Tensor]) -> Levels:
        """Four times (B, C, h, w), the finest first."""
        coarsest, embeddings, eighth, quarter = (
            conv(level) for conv, level in zip(self.convs, reversed(features), strict=True)
        )
        return embeddings + F.interpolate(coarsest, scale_factor=2.0, mode="nearest"), quarter, eighth


class PyramidNeck(Pyramid):
    """`Pyramid` with the narrowing of the finer levels and `no_mem_embed`.

    Args:
        channels: of the trunk's features, the finest first.
        dim: of the embeddings; the others get dim / 8 and dim / 4.
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
        """One convolution for two in a row: the wide feature maps between them need not be made."""
        convs: list[Any] = list(self.convs)
        coarsest, sixteenth, eighth, quarter = convs
        eighth, quarter = in_a_row(eighth, self.conv_s1), in_a_row(quarter, self.conv_s0)
        bias = sixteenth.bias + self.no_mem_embed.flatten()
        return Pyramid([coarsest, pointwise(sixteenth.weight, bias), eighth, quarter])


def in_a_row(first: Any, second: Any) -> nn.Conv2d:
    """The 1 x 1 convolution that does what these two do."""
    a, b = first.weight.double().flatten(1), second.weight.double().flatten(1)
    bias = b @ first.bias.double() + second.bias.double()
    return pointwise((b @ a)[:, :, None, None].to(first.weight.dtype), bias.to(first.weight.dtype))


def pointwise(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A 1 x 1 convolution of these parameters."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    return conv


class PyramidEncoder(nn.Module):
    """(B, 3, S, S) normalised RGB -> image_embeddings (B, dim, S / 16, S / 16), high_res_feats_0 (B, dim / 8,
    S / 4, S / 4) and high_res_feats_1 (B, dim / 4, S / 8, S / 8).

    Args:
        trunk: makes the features of strides 4, 8, 16 and 32.
        channels: of these features.
        dim: of the embeddings.
    """

    def __init__(self, trunk: nn.Module, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = PyramidNeck(channels, dim)

    def forward(self, x: Tensor) -> Levels:
        levels: Levels = self.neck(self.trunk(x))
        return levels
