"""Convolutions computed some rows of the picture at a time: the same function, while what is between them
stays in the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FLOAT_MB = 4e-6


def chunks(total: int, megabytes_each: float, chunk_mb: float) -> Iterator[slice]:
    """`total` things in slices of about equal length, as many in each as fit `chunk_mb`; at least one."""
    count = math.ceil(total / max(1, int(chunk_mb / megabytes_each)))
    step = math.ceil(total / count)
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


class ConvolutionsByRows(nn.Module):
    """Convolutions with GELU between them: (B, C, H, W) -> (B, D, h, w).

    Args:
        convolutions: `Conv2d`s, not dilated.
        chunk_mb: how large the largest tensor between them, or behind, may be at a time.
        residual: the input is added behind them, and one more GELU.
    """

    def __init__(self, convolutions: Sequence[nn.Module], chunk_mb: float, residual: bool = False) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.chunk_mb, self.residual = chunk_mb, residual

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        layers = [cast(nn.Conv2d, one) for one in self.convolutions]
        sizes, largest = [tuple(x.shape[2:])], 0
        for layer in layers:
            height, width = (_made(layer, axis, side) for axis, side in enumerate(sizes[-1]))
            sizes.append((height, width))
            largest = max(largest, layer.out_channels * height * width)
        total, found = sizes[-1][0], []
        for rows in chunks(total, largest * FLOAT_MB / total, self.chunk_mb):
            needed, steps = rows, []
            for layer, (height, _) in zip(reversed(layers), reversed(sizes[:-1]), strict=True):
                needed, above, below = _read(layer, needed, height)
                steps.append((layer, above, below))
            y = x[:, :, needed]
            for index, (layer, above, below) in enumerate(reversed(steps)):
                y = F.gelu(y) if index else y
                side = int(layer.padding[1])
                y = F.pad(y, (side, side, above, below)) if side else y
                y = F.conv2d(y, layer.weight, layer.bias, layer.stride, groups=layer.groups)
            found.append(F.gelu(x[:, :, rows] + y) if self.residual else y)
        return torch.cat(found, 2) if len(found) > 1 else found[0]


def _made(layer: nn.Conv2d, axis: int, side: int) -> int:
    """The rows (axis 0) or columns (1) that a convolution makes of `side` of them."""
    return (side + 2 * int(layer.padding[axis]) - layer.kernel_size[axis]) // layer.stride[axis] + 1


def _read(layer: nn.Conv2d, rows: slice, height: int) -> tuple[slice, int, int]:
    """Of what rows of `height` a convolution makes `rows`, and how many rows of zeros are above and below."""
    start = rows.start * layer.stride[0] - int(layer.padding[0])
    stop = (rows.stop - 1) * layer.stride[0] - int(layer.padding[0]) + layer.kernel_size[0]
    return slice(max(start, 0), min(stop, height)), max(-start, 0), max(stop - height, 0)
