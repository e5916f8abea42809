"""Reductions, softmax and normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .common import Array, to_axes


def reduce_mean(x: Array, axes: Any = None, keep_dims: bool = False) -> Array:
    """Mean over `axes`; all axes if None."""
    return np.asarray(np.mean(x, axis=to_axes(axes), keepdims=bool(keep_dims), dtype=np.float32))


def reduce_sum(x: Array, axes: Any = None, keep_dims: bool = False) -> Array:
    """Sum over `axes`; all axes if None."""
    return np.sum(x, axis=to_axes(axes), keepdims=bool(keep_dims))


def reduce_max(x: Array, axes: Any = None, keep_dims: bool = False) -> Array:
    """Maximum over `axes`; all axes if None."""
    return np.max(x, axis=to_axes(axes), keepdims=bool(keep_dims))


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) divided by its sum along `axis`."""
    x = x - x.max(axis=axis, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=axis, keepdims=True)
    return x


def layer_norm(
    x: Array, axes: Any = None, gamma: Array | None = None, beta: Array | None = None, epsilon: float = 1e-5
) -> Array:
    """LayerNorm over `axes`; gamma and beta have the shape of those axes."""
    over = to_axes(axes)
    centred = x - x.mean(axis=over, keepdims=True)
    variance = np.square(centred).mean(axis=over, keepdims=True)
    centred /= np.sqrt(variance + np.float32(epsilon))
    if gamma is not None:
        centred *= gamma
    if beta is not None:
        centred += beta
    return centred


def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: float = 1e-5,
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta; all four are (C,), x is (N, C, ...)."""
    scale = 1 / np.sqrt(variance + np.float32(epsilon))
    if gamma is not None:
        scale = scale * gamma
    shift = -mean * scale
    if beta is not None:
        shift = shift + beta
    per_channel = (-1, *[1] * (x.ndim - 2))
    return x * scale.reshape(per_channel) + shift.reshape(per_channel)
