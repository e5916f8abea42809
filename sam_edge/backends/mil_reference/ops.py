"""MIL operations in NumPy, one small function each, with MIL's argument names.

Floating-point arguments arrive as float32 and results leave as they come: `program.py` widens FP16
arguments before and rounds results to the declared type after. See the MIL operation reference of
coremltools for what each does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]
Operation = Callable[..., Any]

# Elementwise


def add(x: Array, y: Array) -> Array:
    """x + y."""
    return np.add(x, y)


def sub(x: Array, y: Array) -> Array:
    """x - y."""
    return np.subtract(x, y)


def mul(x: Array, y: Array) -> Array:
    """x * y."""
    return np.multiply(x, y)


def real_div(x: Array, y: Array) -> Array:
    """x / y."""
    return np.true_divide(x, y)


def floor_div(x: Array, y: Array) -> Array:
    """The largest whole number not above x / y."""
    return np.floor_divide(x, y)


def mod(x: Array, y: Array) -> Array:
    """The remainder of `floor_div`."""
    return np.mod(x, y)


def maximum(x: Array, y: Array) -> Array:
    """The larger of each pair."""
    return np.maximum(x, y)


def minimum(x: Array, y: Array) -> Array:
    """The smaller of each pair."""
    return np.minimum(x, y)


def power(x: Array, y: Array) -> Array:
    """x to the power y; MIL's `pow`."""
    return np.power(x, y)


def equal(x: Array, y: Array) -> Array:
    """x == y."""
    return np.equal(x, y)


def not_equal(x: Array, y: Array) -> Array:
    """x != y."""
    return np.not_equal(x, y)


def less(x: Array, y: Array) -> Array:
    """x < y."""
    return np.less(x, y)


def less_equal(x: Array, y: Array) -> Array:
    """x <= y."""
    return np.less_equal(x, y)


def greater(x: Array, y: Array) -> Array:
    """x > y."""
    return np.greater(x, y)


def greater_equal(x: Array, y: Array) -> Array:
    """x >= y."""
    return np.greater_equal(x, y)


def logical_and(x: Array, y: Array) -> Array:
    """Both."""
    return np.logical_and(x, y)


def logical_or(x: Array, y: Array) -> Array:
    """Either."""
    return np.logical_or(x, y)


def logical_not(x: Array) -> Array:
    """Not x."""
    return np.logical_not(x)


def select(cond: Array, a: Array, b: Array) -> Array:
    """a where cond, else b."""
    return np.where(cond, a, b)


def sqrt(x: Array) -> Array:
    """The square root."""
    return np.sqrt(x)


def rsqrt(x: Array, epsilon: float = 1e-12) -> Array:
    """1 / sqrt(x + epsilon)."""
    return 1 / np.sqrt(x + np.float32(epsilon))


def square(x: Array) -> Array:
    """x * x."""
    return np.square(x)


def inverse(x: Array, epsilon: float = 1e-4) -> Array:
    """1 / (x + epsilon)."""
    return 1 / (x + np.float32(epsilon))


def absolute(x: Array) -> Array:
    """|x|; MIL's `abs`."""
    return np.abs(x)


def exp(x: Array) -> Array:
    """e to the power x."""
    return np.exp(x)


def sin(x: Array) -> Array:
    """The sine."""
    return np.sin(x)


def cos(x: Array) -> Array:
    """The cosine."""
    return np.cos(x)


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(x)


def clip(x: Array, alpha: float, beta: float) -> Array:
    """x, but at least alpha and at most beta."""
    return np.clip(x, alpha, beta)


def relu(x: Array) -> Array:
    """x where positive, else 0."""
    return np.maximum(x, 0)


def relu6(x: Array) -> Array:
    """`relu`, at most 6."""
    return np.clip(x, 0, 6)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    return x * sigmoid(x)


# A rational approximation of erf on [-4, 4], beyond which FP32 has 1; odd over even powers.
_ERF_NUMERATOR = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_DENOMINATOR = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def erf(x: Array) -> Array:
    """The error function, to 4e-7."""
    x = np.clip(x, -4, 4).astype(np.float32, copy=False)
    squared = x * x
    numerator = np.full_like(x, _ERF_NUMERATOR[0])
    for coefficient in _ERF_NUMERATOR[1:]:
        numerator *= squared
        numerator += np.float32(coefficient)
    denominator = np.full_like(x, _ERF_DENOMINATOR[0])
    for coefficient in _ERF_DENOMINATOR[1:]:
        denominator *= squared
        denominator += np.float32(coefficient)
    numerator *= x
    numerator /= denominator
    return numerator


def gelu(x: Array, mode: str = "EXACT") -> Array:
    """x times the normal distribution function of x, or one of its two approximations."""
    if mode == "EXACT":
        return np.float32(0.5) * x * (1 + erf(x * np.float32(0.5**0.5)))
    if mode == "TANH_APPROXIMATION":
        inner = np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x)
        return np.float32(0.5) * x * (1 + np.tanh(inner))
    if mode == "SIGMOID_APPROXIMATION":
        return x * sigmoid(np.float32(1.702) * x)
    raise ValueError(f"gelu mode {mode!r} is unknown")


# Reductions and norms


def _axes(axes: Any) -> tuple[int, ...] | None:
    return None if axes is None else tuple(int(axis) for axis in np.atleast_1d(axes))


def reduce_mean(x: Array, axes: Any = None, keep_dims: bool = False) -> Array:
    """The mean over `axes`."""
    return np.asarray(np.mean(x, axis=_axes(axes), keepdims=bool(keep_dims), dtype=np.float32))


def reduce_sum(x: Array, axes: Any = None, keep_dims: bool = False) -> Array:
    """The sum over `axes`."""
    return np.sum(x, axis=_axes(axes), keepdims=bool(keep_dims))


def reduce_max(x: Array, axes: Any = None, keep_dims: bool = False) -> Array:
    """The largest over `axes`."""
    return np.max(x, axis=_axes(axes), keepdims=bool(keep_dims))


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) over its sum along `axis`."""
    x = x - x.max(axis=axis, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=axis, keepdims=True)
    return x


def layer_norm(
    x: Array, axes: Any = None, gamma: Array | None = None, beta: Array | None = None, epsilon: float = 1e-5
) -> Array:
    """To mean 0 and variance 1 over `axes`, then times gamma plus beta, which have those axes."""
    over = _axes(axes)
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
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, all of them one value a channel."""
    scale = 1 / np.sqrt(variance + np.float32(epsilon))
    if gamma is not None:
        scale = scale * gamma
    shift = -mean * scale
    if beta is not None:
        shift = shift + beta
    per_channel = (-1, *[1] * (x.ndim - 2))
    return x * scale.reshape(per_channel) + shift.reshape(per_channel)


# Products


def matmul(x: Array, y: Array, transpose_x: bool = False, transpose_y: bool = False) -> Array:
    """The batched matrix product."""
    left = x.swapaxes(-1, -2) if transpose_x and x.ndim > 1 else x
    right = y.swapaxes(-1, -2) if transpose_y and y.ndim > 1 else y
    return np.matmul(left, right)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x (..., in) times weight (out, in) transposed, plus bias (out,)."""
    rows = x.reshape(-1, x.shape[-1]) @ weight.T
    if bias is not None:
        rows += bias
    return rows.reshape(*x.shape[:-1], weight.shape[0])


def _spatial_pads(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pad_type: str,
    pad: Sequence[int],
) -> list[tuple[int, int]]:
    """(before, after) for each spatial axis."""
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
    pads = _spatial_pads(x.shape[2:], (kh, kw), (sh, sw), (dh, dw), pad_type, pad)
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
    """One kernel a channel: the sum over its taps of shifted pictures."""
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


# Moving data


def identity(x: Array) -> Array:
    """x."""
    return x


def cast(x: Array, dtype: str) -> Array:
    """x; the declared output type does the rest."""
    del dtype
    return x


def reshape(x: Array, shape: Any) -> Array:
    """x in another shape: -1 is worked out, 0 keeps the axis."""
    sizes = [int(s) for s in np.atleast_1d(shape)]
    return x.reshape([x.shape[i] if s == 0 else s for i, s in enumerate(sizes)])


def transpose(x: Array, perm: Any) -> Array:
    """x with its axes in the order `perm`."""
    return x.transpose([int(p) for p in perm])


def squeeze(x: Array, axes: Any = None) -> Array:
    """x without `axes`, which have length 1."""
    return np.squeeze(x, _axes(axes))


def expand_dims(x: Array, axes: Any) -> Array:
    """x with axes of length 1 at `axes` of the result."""
    return np.expand_dims(x, _axes(axes) or ())


def concat(values: Sequence[Array], axis: int, interleave: bool = False) -> Array:
    """The arrays one after the other along `axis`, or by turns."""
    if interleave:
        axis = int(axis) % values[0].ndim
        shape = list(values[0].shape)
        shape[axis] *= len(values)
        return np.stack(values, axis + 1).reshape(shape)
    return np.concatenate([np.atleast_1d(v) for v in values], int(axis))


def stack(values: Sequence[Array], axis: int) -> Array:
    """The arrays along a new axis."""
    return np.stack(values, int(axis))


def split(x: Array, axis: int, num_splits: int | None = None, split_sizes: Any = None) -> list[Array]:
    """x in parts along `axis`: `num_splits` equal ones, or of the given sizes."""
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
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Array:
    """x[begin:end:stride] on every axis; a mask stands for "from the first", "to the last", "one"."""
    rank = x.ndim
    steps = [1] * rank if stride is None else [int(s) for s in stride]
    no = [False] * rank
    from_first = no if begin_mask is None else begin_mask
    to_last = no if end_mask is None else end_mask
    one = no if squeeze_mask is None else squeeze_mask
    index: list[Any] = []
    for axis in range(rank):
        if one[axis]:
            index.append(int(begin[axis]))
            continue
        start = None if from_first[axis] else int(begin[axis])
        stop = None if to_last[axis] else int(end[axis])
        index.append(slice(start, stop, steps[axis]))
    return x[tuple(index)]


def slice_by_size(x: Array, begin: Any, size: Any) -> Array:
    """`size` elements from `begin` on every axis; -1 is all the rest."""
    index = []
    for first, count, length in zip(begin, size, x.shape, strict=True):
        start = int(first) + (length if first < 0 else 0)
        index.append(slice(start, length if count == -1 else start + int(count)))
    return x[tuple(index)]


def gather(x: Array, indices: Array, axis: int = 0, **_: Any) -> Array:
    """The elements at `indices` along `axis`."""
    return np.take(x, indices, int(axis))


def tile(x: Array, reps: Any) -> Array:
    """x repeated `reps` times along each axis."""
    return np.tile(x, [int(r) for r in reps])


def fill(shape: Any, value: Any = 0.0) -> Array:
    """An array of one value."""
    return np.full([int(s) for s in np.atleast_1d(shape)], value)


def shape(x: Array) -> Array:
    """The lengths of x's axes."""
    return np.array(x.shape, np.int32)


_PAD_MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge"}


def pad(x: Array, pad: Any, mode: str = "constant", constant_val: float = 0.0) -> Array:
    """x with (before, after) pairs for its last axes added on."""
    pairs = np.reshape(np.asarray(pad, int), (-1, 2)).tolist()
    widths = [[0, 0]] * (x.ndim - len(pairs)) + pairs
    if mode == "constant":
        return np.pad(x, widths, constant_values=x.dtype.type(constant_val))
    if mode not in _PAD_MODES:
        raise ValueError(f"pad mode {mode!r} is unknown")
    return np.pad(x, widths, mode=_PAD_MODES[mode])


def max_pool(
    x: Array,
    kernel_sizes: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pad_type: str = "valid",
    pad: Sequence[int] = (0, 0, 0, 0),
    ceil_mode: bool = False,
) -> Array:
    """The largest of each window of x (N, C, H, W); what is padded on is smaller than all. No `ceil_mode`."""
    pads = _spatial_pads(x.shape[2:], kernel_sizes, strides, (1, 1), pad_type, pad)
    padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=-np.inf)
    windows = sliding_window_view(padded, tuple(kernel_sizes), axis=(2, 3))
    return windows[:, :, :: strides[0], :: strides[1]].max(axis=(4, 5))


def upsample_nearest_neighbor(x: Array, scale_factor_height: float, scale_factor_width: float) -> Array:
    """x (N, C, H, W) with its rows and columns repeated, whole numbers of times."""
    return x.repeat(int(scale_factor_height), axis=2).repeat(int(scale_factor_width), axis=3)


# Quantisation


def quantize(
    input: Array,
    scale: Array,
    zero_point: Array | None = None,
    axis: int | None = None,
    output_dtype: str = "int8",
) -> Array:
    """clip(round(input / scale) + zero_point) to the 8-bit type; one scale, or one along `axis`."""
    if output_dtype not in ("int8", "uint8"):
        raise ValueError(f"quantize to {output_dtype!r} is not supported")
    steps = np.rint(input / _along(scale, axis, input.ndim))
    if zero_point is not None:
        steps = steps + _along(zero_point, axis, input.ndim).astype(np.float32)
    limits = np.iinfo(np.int8 if output_dtype == "int8" else np.uint8)
    return np.clip(steps, limits.min, limits.max).astype(limits.dtype)


def dequantize(input: Array, scale: Array, zero_point: Array | None = None, axis: int | None = None) -> Array:
    """scale * (input - zero_point); one scale, or one along `axis`."""
    values = input.astype(np.float32)
    if zero_point is not None:
        values -= _along(zero_point, axis, values.ndim).astype(np.float32)
    return values * _along(scale, axis, values.ndim)


def _along(parameter: Any, axis: int | None, rank: int) -> Array:
    array = np.asarray(parameter)
    if array.ndim == 0 or axis is None:
        return array
    lengths = [1] * rank
    lengths[int(axis)] = -1
    return array.reshape(lengths)


def constexpr_affine_dequantize(quantized_data: Array, zero_point: Any, scale: Any, axis: int) -> Array:
    """A weight from its 8-bit form; before iOS 18."""
    return dequantize(quantized_data, scale, zero_point, int(axis))


def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """A weight from its 4- or 8-bit form, one scale a block; from iOS 18 on."""
    values = data.astype(np.float32)
    if offset is not None:
        values -= _blocks(offset, values.shape).astype(np.float32)
    return values * _blocks(scale, values.shape)


def _blocks(parameter: Array, shape: tuple[int, ...]) -> Array:
    """Repeat each entry over its block."""
    for axis, (length, blocks) in enumerate(zip(shape, parameter.shape, strict=True)):
        if blocks not in (1, length):
            parameter = np.repeat(parameter, length // blocks, axis)
    return parameter


# These only move values, so that FP16 ones need no widening.
MOVING: dict[str, Operation] = {
    "cast": cast,
    "concat": concat,
    "expand_dims": expand_dims,
    "fill": fill,
    "gather": gather,
    "identity": identity,
    "pad": pad,
    "reshape": reshape,
    "select": select,
    "shape": shape,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "transpose": transpose,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}

COMPUTING: dict[str, Operation] = {
    "abs": absolute,
    "add": add,
    "batch_norm": batch_norm,
    "clip": clip,
    "constexpr_affine_dequantize": constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": constexpr_blockwise_shift_scale,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "cos": cos,
    "dequantize": dequantize,
    "equal": equal,
    "erf": erf,
    "exp": exp,
    "floor_div": floor_div,
    "gelu": gelu,
    "greater": greater,
    "greater_equal": greater_equal,
    "inverse": inverse,
    "layer_norm": layer_norm,
    "less": less,
    "less_equal": less_equal,
    "linear": linear,
    "logical_and": logical_and,
    "logical_not": logical_not,
    "logical_or": logical_or,
    "matmul": matmul,
    "max_pool": max_pool,
    "maximum": maximum,
    "minimum": minimum,
    "mod": mod,
    "mul": mul,
    "not_equal": not_equal,
    "pow": power,
    "quantize": quantize,
    "real_div": real_div,
    "reduce_max": reduce_max,
    "reduce_mean": reduce_mean,
    "reduce_sum": reduce_sum,
    "relu": relu,
    "relu6": relu6,
    "rsqrt": rsqrt,
    "sigmoid": sigmoid,
    "silu": silu,
    "sin": sin,
    "softmax": softmax,
    "sqrt": sqrt,
    "square": square,
    "sub": sub,
    "tanh": tanh,
}
