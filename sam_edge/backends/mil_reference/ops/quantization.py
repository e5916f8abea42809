"""Quantize, dequantize, and constant weights stored in 4 or 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from .common import Array


def quantize(
    input: Array,
    scale: Array,
    zero_point: Array | None = None,
    axis: int | None = None,
    output_dtype: str = "int8",
) -> Array:
    """clip(round(input / scale) + zero_point) in 8 bits; per tensor, or per index of `axis`."""
    if output_dtype not in ("int8", "uint8"):
        raise ValueError(f"quantize to {output_dtype!r} is not supported")
    levels = np.rint(input / _broadcastable(scale, axis, input.ndim))
    if zero_point is not None:
        levels = levels + _broadcastable(zero_point, axis, input.ndim).astype(np.float32)
    limits = np.iinfo(np.int8 if output_dtype == "int8" else np.uint8)
    return np.clip(levels, limits.min, limits.max).astype(limits.dtype)


def dequantize(input: Array, scale: Array, zero_point: Array | None = None, axis: int | None = None) -> Array:
    """scale * (input - zero_point); per tensor, or per index of `axis`."""
    values = input.astype(np.float32)
    if zero_point is not None:
        values -= _broadcastable(zero_point, axis, values.ndim).astype(np.float32)
    return values * _broadcastable(scale, axis, values.ndim)


def _broadcastable(parameter: Any, axis: int | None, rank: int) -> Array:
    """Reshape a scale or zero point so that it broadcasts along `axis`."""
    array = np.asarray(parameter)
    if array.ndim == 0 or axis is None:
        return array
    lengths = [1] * rank
    lengths[int(axis)] = -1
    return array.reshape(lengths)


def constexpr_affine_dequantize(quantized_data: Array, zero_point: Any, scale: Any, axis: int) -> Array:
    """Dequantize an 8-bit weight; used before iOS 18."""
    return dequantize(quantized_data, scale, zero_point, int(axis))


def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """Dequantize a 4- or 8-bit weight with one scale per block; used from iOS 18 on."""
    values = data.astype(np.float32)
    if offset is not None:
        values -= _blocks(offset, values.shape).astype(np.float32)
    return values * _blocks(scale, values.shape)


def _blocks(parameter: Array, shape: tuple[int, ...]) -> Array:
    """Repeat each entry of `parameter` over its block, to broadcast to `shape`."""
    for axis, (length, blocks) in enumerate(zip(shape, parameter.shape, strict=True)):
        if blocks not in (1, length):
            parameter = np.repeat(parameter, length // blocks, axis)
    return parameter
