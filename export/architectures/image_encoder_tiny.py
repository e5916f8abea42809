"""The image encoder of `sam_edge_tiny`: a convolutional trunk and three transformer blocks.

The trunk is EfficientNet-Lite0 (Tan and Le 2019; no squeeze-and-excitation, ReLU6) up to stride 16, with its
BatchNorms folded into the convolutions. Features with strides 4, 8 and 16 are reduced to stride 16 by strided
convolutions and summed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_edge.models.encoders import TinyEncoder

from .layers import LayerNorm2d, MLPBlock


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding, which is uneven for stride 2.

    The trunk's pretrained weights expect it.
    """

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = kernel - stride
        before = total // 2
        if total - before == before:
            return F.conv2d(x, self.weight, self.bias, self.stride, before, self.dilation, self.groups)
        padded = F.pad(x, (before, total - before, before, total - before))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class InvertedResidual(nn.Module):
    """Inverted residual: expand, depthwise, project (Sandler et al. 2018)."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = channels * expand
        self.expand = nn.Conv2d(channels, inner, 1) if expand != 1 else None
        self.depthwise = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, out, 1)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class TransformerBlock(nn.Module):
    """Pre-norm transformer block: (B, n, dim) -> (B, n, dim)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLPBlock(dim, dim * mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        b, n, dim = x.shape
        width = dim // self.num_heads
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.num_heads, width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax((q @ k.transpose(2, 3)) / math.sqrt(width), dim=-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(b, n, dim))
        return x + self.mlp(self.norm2(x))


class ImageEncoderTiny(nn.Module):
    """(B, 3, S, S) normalised RGB -> (B, out_chans, S / 16, S / 16)."""

    def __init__(self, config: TinyEncoder, image_size: int, out_chans: int) -> None:
        super().__init__()
        self.stem = SameConv2d(3, config.stem, 3, 2)
        channels, stride = config.stem, 2
        stages: list[nn.Module] = []
        folds: dict[str, nn.Module] = {}
        for index, stage in enumerate(config.stages):
            blocks = []
            for repeat in range(stage.repeats):
                step = stage.stride if repeat == 0 else 1
                blocks.append(InvertedResidual(channels, stage.channels, stage.kernel, step, stage.expand))
                channels, stride = stage.channels, stride * step
            stages.append(nn.Sequential(*blocks))
            if index in config.fold_stages:
                patch = 16 // stride
                folds[str(index)] = nn.Conv2d(channels, config.dim, patch, patch)
        self.stages = nn.ModuleList(stages)
        self.folds = nn.ModuleDict(folds)
        side = image_size // 16
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side, config.dim))
        self.blocks = nn.ModuleList(
            TransformerBlock(config.dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.dim, out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        folded = None
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if str(index) in self.folds:
                part = self.folds[str(index)](x)
                folded = part if folded is None else folded + part
        assert folded is not None
        b, dim, h, w = folded.shape
        tokens = folded.flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.neck(tokens.transpose(1, 2).reshape(b, dim, h, w))
