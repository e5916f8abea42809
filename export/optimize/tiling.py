"""Tiles that fit the processor's cache, and convolutions computed in tiles of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MB_PER_FLOAT = 4e-6
# 8 rows of 64 queries of one head, with 64 x 64 keys, in FP32.
TILE_MB = 8.0


def tile_slices(total: int, mb_per_item: float, tile_mb: float) -> Iterator[slice]:
    """Divide `total` items into slices of about equal length, each at most `tile_mb` megabytes.

    A slice holds at least one item, also where one is larger than `tile_mb`.

        >>> list(tile_slices(5, 1.0, 2.0))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    count = math.ceil(total / max(1, int(tile_mb / mb_per_item)))
    step = math.ceil(total / count)
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


class RowTiledConvolutions(nn.Module):
    """Convolutions with GELU between them, a tile of output rows at a time: (B, C, H, W) -> (B, D, h, w).

    The tensors between the convolutions then stay in the processor's cache. Neighbouring tiles compute the
    rows that both need twice.

    Args:
        convolutions: `Conv2d`s without dilation, in order.
        tile_mb: tile size in MB for the largest output of a convolution.
        residual: whether the input is added to the result, and GELU applied once more.
    """

    def __init__(self, convolutions: Sequence[nn.Module], tile_mb: float, residual: bool = False) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.tile_mb, self.residual = tile_mb, residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, h, w)."""
        layers = [cast(nn.Conv2d, layer) for layer in self.convolutions]
        sizes, largest = [tuple(x.shape[2:])], 0
        for layer in layers:
            height, width = (_output_size(layer, axis, size) for axis, size in enumerate(sizes[-1]))
            sizes.append((height, width))
            largest = max(largest, layer.out_channels * height * width)
        total, tiles = sizes[-1][0], []
        for rows in tile_slices(total, largest * MB_PER_FLOAT / total, self.tile_mb):
            needed, steps = rows, []
            for layer, (height, _) in zip(reversed(layers), reversed(sizes[:-1]), strict=True):
                needed, above, below = _input_rows(layer, needed, height)
                steps.append((layer, above, below))
            y = x[:, :, needed]
            for index, (layer, above, below) in enumerate(reversed(steps)):
                y = F.gelu(y) if index else y
                side = int(layer.padding[1])
                y = F.pad(y, (side, side, above, below)) if side else y
                y = F.conv2d(y, layer.weight, layer.bias, layer.stride, groups=layer.groups)
            tiles.append(F.gelu(x[:, :, rows] + y) if self.residual else y)
        return torch.cat(tiles, 2) if len(tiles) > 1 else tiles[0]


def _output_size(layer: nn.Conv2d, axis: int, size: int) -> int:
    """Output size of a convolution along rows (axis 0) or columns (axis 1) for an input of `size`."""
    return (size + 2 * int(layer.padding[axis]) - layer.kernel_size[axis]) // layer.stride[axis] + 1


def _input_rows(layer: nn.Conv2d, rows: slice, height: int) -> tuple[slice, int, int]:
    """Rows of an input of `height` that a convolution reads to compute the output `rows`.

    Returns:
        The input rows, and the number of padding rows above and below them.
    """
    start = rows.start * layer.stride[0] - int(layer.padding[0])
    stop = (rows.stop - 1) * layer.stride[0] - int(layer.padding[0]) + layer.kernel_size[0]
    return slice(max(start, 0), min(stop, height)), max(-start, 0), max(stop - height, 0)
