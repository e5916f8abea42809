"""EfficientViT-SAM's image encoder: EfficientViT's large backbone (Cai et al. 2023), whose attention is
linear in the number of tokens, and a neck that sums its last three stages (Zhang et al. 2024).

Parameter names are those of the published checkpoints. Two operations differ for static export: bicubic
upsampling is a matmul with a constant matrix along each axis, which every runtime supports, and the keys are
summed by a reduction instead of a row of ones beneath the values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_edge.models.encoders import EfficientVitEncoder, EfficientVitStage

from .layers import LayerNorm2d

# Published with this epsilon, which is not BatchNorm's default.
NORM_EPS = 1e-6
ATTENTION_EPS = 1e-15


class ConvLayer(nn.Module):
    """Convolution with "same" padding, optionally followed by BatchNorm and GELU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        *,
        norm: bool = True,
        bias: bool = False,
        act: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(outputs, eps=NORM_EPS) if norm else nn.Identity()
        self.act = nn.GELU(approximate="tanh") if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    def fuse(self) -> nn.Module:
        """Fold BatchNorm into the convolution; in evaluation mode only."""
        conv = self.conv
        if isinstance(self.norm, nn.BatchNorm2d):
            conv = nn.utils.fuse_conv_bn_eval(conv, self.norm)
        return nn.Sequential(conv, self.act) if isinstance(self.act, nn.GELU) else conv


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(width, width, 3, act=True)
        self.conv2 = ConvLayer(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class FusedMBConv(nn.Module):
    """A 3 x 3 convolution to `expand` times the channels, then a 1 x 1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        self.spatial_conv = ConvLayer(inputs, inputs * expand, 3, stride, act=True)
        self.point_conv = ConvLayer(inputs * expand, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.spatial_conv(x))


class MBConv(nn.Module):
    """Inverted residual: 1 x 1 to `expand` times the channels, 3 x 3 depthwise, 1 x 1 with BatchNorm."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = inputs * expand
        self.inverted_conv = ConvLayer(inputs, inner, 1, norm=False, bias=True, act=True)
        self.depth_conv = ConvLayer(inner, inner, 3, stride, inner, norm=False, bias=True, act=True)
        self.point_conv = ConvLayer(inner, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.depth_conv(self.inverted_conv(x)))


class LiteMLA(nn.Module):
    """Multi-scale linear attention (Cai et al. 2023): (V ReLU(K)^T) ReLU(Q), normalised.

    It is computed on the tokens and on their aggregation by a depthwise convolution.
    """

    def __init__(self, width: int, head_width: int, kernel: int) -> None:
        super().__init__()
        self.head_width = head_width
        total = 3 * width
        self.qkv = ConvLayer(width, total, 1, norm=False)
        gather = nn.Conv2d(total, total, kernel, padding=kernel // 2, groups=total, bias=False)
        mix = nn.Conv2d(total, total, 1, groups=total // head_width, bias=False)
        self.aggreg = nn.ModuleList([nn.Sequential(gather, mix)])
        self.proj = ConvLayer(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        qkv = self.qkv(x)
        heads = torch.cat([qkv, self.aggreg[0](qkv)], dim=1)
        heads = heads.reshape(batch, -1, 3 * self.head_width, height * width)
        q, k, v = heads.chunk(3, dim=2)
        q, k = torch.relu(q), torch.relu(k)
        keys = k.transpose(2, 3)
        values = (v @ keys) @ q
        weights = keys.sum(2, keepdim=True) @ q
        # Where the weights are zero, so are the values. The published code adds the epsilon instead, which
        # graph optimizers remove.
        return self.proj((values / weights.clamp_min(ATTENTION_EPS)).reshape(batch, -1, height, width))


class Block(nn.Module):
    """`main`, with an optional residual connection."""

    def __init__(self, main: nn.Module, shortcut: bool = True) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x) if self.shortcut else self.main(x)


class AttentionBlock(nn.Module):
    """Linear attention for global context, then an inverted residual for local context."""

    def __init__(self, stage: EfficientVitStage, head_width: int) -> None:
        super().__init__()
        self.context_module = Block(LiteMLA(stage.width, head_width, stage.kernel))
        self.local_module = Block(MBConv(stage.width, stage.width, 1, stage.expand))

    def forward(self, x: Tensor) -> Tensor:
        return self.local_module(self.context_module(x))


class Upsample(nn.Module):
    """Bicubic interpolation with half-pixel centres: (B, C, old, old) -> (B, C, new, new)."""

    def __init__(self, old: int, new: int) -> None:
        super().__init__()
        # A list and not a buffer, which checkpoints would have to hold.
        columns = torch.eye(old, device="cpu")[None, None]
        made = F.interpolate(columns, (new, old), mode="bicubic", align_corners=False)
        self.matrix: list[list[float]] | None = made[0, 0].tolist() if old != new else None

    def forward(self, x: Tensor) -> Tensor:
        if self.matrix is None:
            return x
        rows = torch.tensor(self.matrix, dtype=x.dtype, device=x.device)
        return rows @ (x @ rows.T)


class OpList(nn.Module):
    """Modules one after another."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.op_list:
            x = module(x)
        return x


def make_stage(stage: EfficientVitStage, inputs: int, head_width: int) -> OpList:
    """Build a block that halves the resolution, and `depth` more blocks."""
    kinds = {"fmb": FusedMBConv, "mb": MBConv, "att": MBConv}
    blocks: list[nn.Module] = [
        Block(kinds[stage.block](inputs, stage.width, 2, 4 * stage.expand), shortcut=False)
    ]
    for _ in range(stage.depth):
        if stage.block == "att":
            blocks.append(AttentionBlock(stage, head_width))
        else:
            blocks.append(Block(kinds[stage.block](stage.width, stage.width, 1, stage.expand)))
    return OpList(*blocks)


class Backbone(nn.Module):
    """(B, 3, S, S) -> features of all stages, with strides 2, 4, 8 and so on, (B, C, h, w)."""

    def __init__(self, config: EfficientVitEncoder) -> None:
        super().__init__()
        stem = [Block(ResBlock(config.stem_width)) for _ in range(config.stem_depth)]
        stages = [OpList(ConvLayer(3, config.stem_width, 3, 2, act=True), *stem)]
        width = config.stem_width
        for stage in config.stages:
            stages.append(make_stage(stage, width, config.head_width))
            width = stage.width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class Neck(nn.Module):
    """Sum of the last three stages at one width and resolution, then `neck_depth` blocks."""

    def __init__(self, config: EfficientVitEncoder, image_size: int, side: int, out_chans: int) -> None:
        super().__init__()
        width, last = config.neck_width, len(config.stages)
        self.input_ops = nn.ModuleList(
            OpList(
                ConvLayer(config.stages[i - 1].width, width, 1),
                Upsample(image_size >> (i + 1), side),
            )
            for i in (last, last - 1, last - 2)
        )
        self.middle = OpList(
            *(Block(FusedMBConv(width, width, 1, config.neck_expand)) for _ in range(config.neck_depth))
        )
        self.output_ops = nn.ModuleList([OpList(ConvLayer(width, out_chans, 1, norm=False, bias=True))])

    def forward(self, stages: list[Tensor]) -> Tensor:
        first, second, third = (op(stage) for op, stage in zip(self.input_ops, stages[:-4:-1], strict=True))
        return self.output_ops[0](self.middle(first + second + third))


class ImageEncoderEfficientViT(nn.Module):
    """(B, 3, S, S) normalised RGB -> (B, out_chans, side, side), the side of the third last stage."""

    def __init__(self, config: EfficientVitEncoder, image_size: int, out_chans: int) -> None:
        super().__init__()
        side = image_size >> (len(config.stages) - 1)
        self.backbone = Backbone(config)
        self.neck = Neck(config, image_size, side, out_chans)
        self.norm = LayerNorm2d(out_chans, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.neck(self.backbone(x)))
