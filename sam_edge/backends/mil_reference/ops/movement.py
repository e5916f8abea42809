"""Operators that only move values: shapes, slices, concatenation, padding, nearest upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .common import Array, to_axes


def identity(x: Array) -> Array:
    """x."""
    return x


def cast(x: Array, dtype: str) -> Array:
    """x unchanged: `program.apply` converts every result to its declared type."""
    del dtype
    return x


def reshape(x: Array, shape: Any) -> Array:
    """x reshaped; -1 is inferred, 0 keeps the length of that axis."""
    sizes = [int(s) for s in np.atleast_1d(shape)]
    return x.reshape([x.shape[i] if s == 0 else s for i, s in enumerate(sizes)])


def transpose(x: Array, perm: Any) -> Array:
    """x with its axes permuted by `perm`."""
    return x.transpose([int(p) for p in perm])


def squeeze(x: Array, axes: Any = None) -> Array:
    """x without `axes`, which have length 1; without all such axes if None."""
    return np.squeeze(x, to_axes(axes))


def expand_dims(x: Array, axes: Any) -> Array:
    """x with new axes of length 1 at positions `axes` of the result."""
    return np.expand_dims(x, to_axes(axes) or ())


def concat(values: Sequence[Array], axis: int, interleave: bool = False) -> Array:
    """The arrays concatenated along `axis`, or interleaved element by element."""
    if interleave:
        axis = int(axis) % values[0].ndim
        shape = list(values[0].shape)
        shape[axis] *= len(values)
        return np.stack(values, axis + 1).reshape(shape)
    return np.concatenate([np.atleast_1d(v) for v in values], int(axis))


def stack(values: Sequence[Array], axis: int) -> Array:
    """The arrays stacked along a new axis."""
    return np.stack(values, int(axis))


def split(x: Array, axis: int, num_splits: int | None = None, split_sizes: Any = None) -> list[Array]:
    """x split along `axis` into `num_splits` equal parts, or parts of `split_sizes`."""
    if split_sizes is not None:
        ends = np.cumsum([int(s) for s in split_sizes])[:-1]
        return np.split(x, ends, int(axis))
    if num_splits is None:
        raise ValueError("split has neither num_splits nor split_sizes")
    return np.split(x, int(num_splits), int(axis))


def slice_by_index(
    x: Array,
    begin: Any,
    end: Any,
    *,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Array:
    """x[begin:end:stride] on every axis.

    Where `begin_mask` or `end_mask` is set, that bound is open; where `squeeze_mask` is set, the axis is
    indexed by `begin` and removed.
    """
    rank = x.ndim
    steps = [1] * rank if stride is None else [int(s) for s in stride]
    unset = [False] * rank
    open_begin = unset if begin_mask is None else begin_mask
    open_end = unset if end_mask is None else end_mask
    squeezed = unset if squeeze_mask is None else squeeze_mask
    index: list[Any] = []
    for axis in range(rank):
        if squeezed[axis]:
            index.append(int(begin[axis]))
            continue
        start = None if open_begin[axis] else int(begin[axis])
        stop = None if open_end[axis] else int(end[axis])
        index.append(slice(start, stop, steps[axis]))
    return x[tuple(index)]


def slice_by_size(x: Array, begin: Any, size: Any) -> Array:
    """x[begin:begin+size] on every axis; a size of -1 is everything from `begin` on."""
    index = []
    for first, count, length in zip(begin, size, x.shape, strict=True):
        start = int(first) + (length if first < 0 else 0)
        index.append(slice(start, length if count == -1 else start + int(count)))
    return x[tuple(index)]


def select(cond: Array, a: Array, b: Array) -> Array:
    """a where cond, else b."""
    return np.where(cond, a, b)


def gather(x: Array, indices: Array, axis: int = 0, **_: Any) -> Array:
    """The elements of x at `indices` along `axis`."""
    return np.take(x, indices, int(axis))


def tile(x: Array, reps: Any) -> Array:
    """x repeated `reps` times along each axis."""
    return np.tile(x, [int(r) for r in reps])


def fill(shape: Any, value: Any = 0.0) -> Array:
    """An array of that shape filled with `value`."""
    return np.full([int(s) for s in np.atleast_1d(shape)], value)


def shape(x: Array) -> Array:
    """The shape of x, as int32."""
    return np.array(x.shape, np.int32)


_PAD_MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge"}


def pad(x: Array, pad: Any, mode: str = "constant", constant_val: float = 0.0) -> Array:
    """x padded; `pad` holds (before, after) for each of the last axes."""
    pairs = np.reshape(np.asarray(pad, int), (-1, 2)).tolist()
    widths = [[0, 0]] * (x.ndim - len(pairs)) + pairs
    if mode == "constant":
        return np.pad(x, widths, constant_values=x.dtype.type(constant_val))
    if mode not in _PAD_MODES:
        raise ValueError(f"pad mode {mode!r} is unknown")
    return np.pad(x, widths, mode=_PAD_MODES[mode])


def upsample_nearest_neighbor(x: Array, scale_factor_height: float, scale_factor_width: float) -> Array:
    """x (N, C, H, W) upsampled by integer factors."""
    return x.repeat(int(scale_factor_height), axis=2).repeat(int(scale_factor_width), axis=3)
