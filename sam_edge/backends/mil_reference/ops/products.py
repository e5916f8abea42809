"""Matmul, linear, convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .common import Array


def matmul(x: Array, y: Array, transpose_x: bool = False, transpose_y: bool = False) -> Array:
    """Batched matmul."""
    left = x.swapaxes(-1, -2) if transpose_x and x.ndim > 1 else x
    right = y.swapaxes(-1, -2) if transpose_y and y.ndim > 1 else y
    return np.matmul(left, right)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x @ weight.T + bias: x (..., in), weight (out, in), bias (out,)."""
    rows = x.reshape(-1, x.shape[-1]) @ weight.T
    if bias is not None:
        rows += bias
    return rows.reshape(*x.shape[:-1], weight.shape[0])


def _spatial_pads(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1),
    pad_type: str,
    pad: Sequence[int],
) -> list[tuple[int, int]]:
    """Padding (before, after) of each spatial axis."""
    if pad_type == "custom":
        return [(int(pad[2 * i]), int(pad[2 * i + 1])) for i in range(len(size))]
    if pad_type == "valid":
        return [(0, 0)] * len(size)
    pads = []
    for length, width, step, spread in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (-(-length // step) - 1) * step + (width - 1) * spread + 1 - length)
        less_half = total // 2
        more_half = total - less_half
        pads.append((more_half, less_half) if pad_type == "same_lower" else (less_half, more_half))
    return pads


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    strides: Sequence[int] = (1, 1),
    pad_type: str = "valid",
    pad: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Array:
    """2-D convolution: x (N, C, H, W), weight (out, C / groups, kh, kw), bias (out,)."""
    out, per_group, kh, kw = weight.shape
    groups = int(groups)
    sh, sw = (int(s) for s in strides)
    dh, dw = (int(d) for d in dilations)
    pads = _spatial_pads(
        x.shape[2:], (kh, kw), strides=(sh, sw), dilations=(dh, dw), pad_type=pad_type, pad=pad
    )
    if any(before or after for before, after in pads):
        x = np.pad(x, [(0, 0), (0, 0), *pads])
    n = x.shape[0]
    height = (x.shape[2] - (kh - 1) * dh - 1) // sh + 1
    width = (x.shape[3] - (kw - 1) * dw - 1) // sw + 1
    if per_group == 1 and groups == x.shape[1] == out:
        result = _depthwise(x, weight, (height, width), (sh, sw), (dh, dw))
    else:
        windows = sliding_window_view(x, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(2, 3))
        windows = windows[:, :, ::sh, ::sw, ::dh, ::dw]
        columns = windows.transpose(0, 1, 4, 5, 2, 3)
        columns = columns.reshape(n, groups, per_group * kh * kw, height * width)
        kernels = weight.reshape(groups, out // groups, per_group * kh * kw)
        result = (kernels @ columns).reshape(n, out, height, width)
    return result if bias is None else result + bias[:, None, None]


def _depthwise(
    x: Array,
    weight: Array,
    size: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> Array:
    """Depthwise convolution, as a sum over the kernel's taps; `size` is the output's (H, W)."""
    (height, width), (sh, sw), (dh, dw) = size, strides, dilations
    total = np.zeros((*x.shape[:2], height, width), np.float32)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            rows = slice(i * dh, i * dh + (height - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (width - 1) * sw + 1, sw)
            total += x[:, :, rows, columns] * weight[:, 0, i, j][:, None, None]
    return total


def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    pad: Sequence[int] = (0, 0, 0, 0),
    output_shape: Sequence[int] | None = None,
    pad_type: str = "valid",
    strides: Sequence[int] = (1, 1),
    dilations: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Array:
    """2-D transposed convolution: x (N, C, H, W), weight (C, out / groups, kh, kw), bias (out,)."""
    if pad_type not in ("valid", "custom"):
        raise ValueError(f"conv_transpose with pad_type {pad_type!r} is not supported")
    n, channels, height, width = x.shape
    _, per_group, kh, kw = weight.shape
    groups = int(groups)
    sh, sw = (int(s) for s in strides)
    dh, dw = (int(d) for d in dilations)
    kernels = weight.reshape(groups, channels // groups, per_group * kh * kw).swapaxes(1, 2)
    pixels = x.reshape(n, groups, channels // groups, height * width)
    parts = (kernels @ pixels).reshape(n, groups * per_group, kh, kw, height, width)
    full_height = (height - 1) * sh + (kh - 1) * dh + 1
    full_width = (width - 1) * sw + (kw - 1) * dw + 1
    full = np.zeros((n, groups * per_group, full_height, full_width), np.float32)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + (height - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (width - 1) * sw + 1, sw)
            full[:, :, rows, columns] += parts[:, :, i, j]
    top, bottom, left, right = (int(p) for p in pad) if pad_type == "custom" else (0, 0, 0, 0)
    if output_shape is not None:
        wanted_height, wanted_width = int(output_shape[-2]), int(output_shape[-1])
        grow_h = max(0, top + wanted_height - full_height)
        grow_w = max(0, left + wanted_width - full_width)
        full = np.pad(full, [(0, 0), (0, 0), (0, grow_h), (0, grow_w)])
        full = full[:, :, top : top + wanted_height, left : left + wanted_width]
    else:
        full = full[:, :, top : full_height - bottom, left : full_width - right]
    return full if bias is None else full + bias[:, None, None]


def max_pool(
    x: Array,
    kernel_sizes: Sequence[int],
    *,
    strides: Sequence[int] = (1, 1),
    pad_type: str = "valid",
    pad: Sequence[int] = (0, 0, 0, 0),
    ceil_mode: bool = False,
) -> Array:
    """Maximum of each window of x (N, C, H, W); the padding is -inf. `ceil_mode` has no effect."""
    pads = _spatial_pads(x.shape[2:], kernel_sizes, strides=strides, pad_type=pad_type, pad=pad)
    padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=-np.inf)
    windows = sliding_window_view(padded, tuple(kernel_sizes), axis=(2, 3))
    return windows[:, :, :: strides[0], :: strides[1]].max(axis=(4, 5))
