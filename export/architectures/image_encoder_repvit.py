"""RepViT (Wang et al. 2024) as image encoder: EdgeSAM sums its last two scales (Zhou et al. 2023), EdgeTAM
makes a feature pyramid of all four (Zhou et al. 2025).

`fuse` merges the parallel branches of the published weights into one convolution. Parameter names are those
of the published EdgeSAM checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_edge.models.encoders import RepVitEncoder, RepVitPyramidEncoder

from .layers import ConvNorm, LayerNorm2d
from .pyramid import PyramidEncoder


class RepConv(nn.Module):
    """Sum of depthwise 3 x 3 and 1 x 1 convolutions and the identity (Ding et al. 2021)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = ConvNorm(dim, dim, 3, groups=dim)
        self.conv1 = ConvNorm(dim, dim, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.conv1(x) + x

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """Merge the branches into one 3 x 3 convolution; in evaluation mode only."""
        wide, narrow = (b.fuse() if isinstance(b, ConvNorm) else b for b in (self.conv, self.conv1))
        assert wide.bias is not None and narrow.bias is not None
        wide.weight[:, :, 1:2, 1:2] += narrow.weight + 1
        wide.bias += narrow.bias
        return wide


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: channels are gated by all channels' means (Hu et al. 2018)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # A quarter of the channels, rounded half up to a multiple of 8.
        hidden = max(8, (dim // 4 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(gate))


class Residual(nn.Module):
    """x + m(x)."""

    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        return x + self.m(x)


class Block(nn.Module):
    """A depthwise token mixer, then two 1 x 1 convolutions as the channel mixer.

    Where `out` is not `dim`, the block halves the resolution.
    """

    def __init__(self, dim: int, out: int, squeeze: bool) -> None:
        super().__init__()
        excite = SqueezeExcite(dim) if squeeze else nn.Identity()
        if dim == out:
            self.token_mixer = nn.Sequential(RepConv(dim), excite)
        else:
            self.token_mixer = nn.Sequential(ConvNorm(dim, dim, 3, 2, groups=dim), excite, ConvNorm(dim, out))
        self.channel_mixer = Residual(
            nn.Sequential(ConvNorm(out, 2 * out), nn.GELU(), ConvNorm(2 * out, out))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixer(self.token_mixer(x))


def bicubic(old: int, new: int) -> Tensor:
    """Matrix (new, old) of bicubic interpolation with half-pixel centres along one axis."""
    identity = torch.eye(old, device="cpu")[None, None]
    return F.interpolate(identity, (new, old), mode="bicubic", align_corners=False)[0, 0]


class Upsample(nn.Module):
    """Bicubic upsampling of a square by 2, as two matmuls: Core ML has no bicubic interpolation."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.matrix = bicubic(side, 2 * side).tolist()

    def forward(self, x: Tensor) -> Tensor:
        matrix = torch.tensor(self.matrix, dtype=x.dtype, device=x.device)
        return matrix @ x @ matrix.T


class OpSequential(nn.Module):
    """A sequence of modules, named `op_list` in the published checkpoints."""

    def __init__(self, *op_list: nn.Module) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(op_list)

    def forward(self, x: Tensor) -> Tensor:
        for op in self.op_list:
            x = op(x)
        return x


class RepViT(nn.Module):
    """RepViT's layers; `ends` are the indices of each stage's last layer."""

    def __init__(self, config: RepVitEncoder) -> None:
        super().__init__()
        dim = config.channels[0]
        stem = nn.Sequential(ConvNorm(3, dim // 2, 3, 2), nn.GELU(), ConvNorm(dim // 2, dim, 3, 2))
        layers: list[nn.Module] = [stem]
        self.ends = []
        for channels, repeats in zip(config.channels, config.repeats, strict=True):
            if channels != dim:
                layers.append(Block(dim, channels, squeeze=False))
            # Every other block has squeeze-and-excitation, but never the last.
            layers += [Block(channels, channels, i % 2 == 0 and i + 1 < repeats) for i in range(repeats)]
            dim = channels
            self.ends.append(len(layers) - 1)
        self.features = nn.ModuleList(layers)

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) -> features with strides 4, 8, 16 and 32, (B, C, h, w)."""
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.ends:
                found.append(x)
        return found


class ImageEncoderRepViT(RepViT):
    """(B, 3, S, S) normalised RGB -> (B, out_chans, S / 16, S / 16)."""

    def __init__(self, config: RepVitEncoder, image_size: int, out_chans: int) -> None:
        super().__init__(config)
        self.fuse_stage2 = nn.Conv2d(config.channels[-2], out_chans, 1, bias=False)
        self.fuse_stage3 = OpSequential(
            nn.Conv2d(config.channels[-1], out_chans, 1, bias=False), Upsample(image_size // 32)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(out_chans, out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x: Tensor) -> Tensor:
        *_, third, last = self.stages(x)
        return self.neck(self.fuse_stage2(third) + self.fuse_stage3(last))


class RepVitTrunk(RepViT):
    """RepViT as trunk of a pyramid: features are taken before a stage's last block, except in the last stage.

    EdgeTAM counts that block to the next stage's downsampling.
    """

    def __init__(self, config: RepVitPyramidEncoder) -> None:
        super().__init__(config)
        *early, last = self.ends
        self.ends = [*(end - 1 for end in early), last]

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.stages(x)


class ImageEncoderRepVitPyramid(PyramidEncoder):
    """EdgeTAM's image encoder: RepViT with SAM 2's feature pyramid."""

    def __init__(self, config: RepVitPyramidEncoder, image_size: int, out_chans: int) -> None:
        super().__init__(RepVitTrunk(config), config.channels, out_chans)
