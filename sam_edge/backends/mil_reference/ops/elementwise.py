"""Elementwise operators: arithmetic, comparisons, activations."""

from __future__ import annotations

import numpy as np

from .common import Array


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
    """floor(x / y)."""
    return np.floor_divide(x, y)


def mod(x: Array, y: Array) -> Array:
    """x - y * floor(x / y)."""
    return np.mod(x, y)


def maximum(x: Array, y: Array) -> Array:
    """max(x, y)."""
    return np.maximum(x, y)


def minimum(x: Array, y: Array) -> Array:
    """min(x, y)."""
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
    """x and y."""
    return np.logical_and(x, y)


def logical_or(x: Array, y: Array) -> Array:
    """x or y."""
    return np.logical_or(x, y)


def logical_not(x: Array) -> Array:
    """not x."""
    return np.logical_not(x)


def sqrt(x: Array) -> Array:
    """sqrt(x)."""
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
    """exp(x)."""
    return np.exp(x)


def sin(x: Array) -> Array:
    """sin(x)."""
    return np.sin(x)


def cos(x: Array) -> Array:
    """cos(x)."""
    return np.cos(x)


def tanh(x: Array) -> Array:
    """tanh(x)."""
    return np.tanh(x)


def clip(x: Array, alpha: float, beta: float) -> Array:
    """min(max(x, alpha), beta)."""
    return np.clip(x, alpha, beta)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return np.clip(x, 0, 6)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    return x * sigmoid(x)


# A rational approximation of erf on [-4, 4], beyond which erf is 1 in FP32: odd over even powers.
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
    """The error function, exact to 4e-7."""
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
    """x times the normal cumulative distribution at x, or one of the two approximations of it."""
    if mode == "EXACT":
        return np.float32(0.5) * x * (1 + erf(x * np.float32(0.5**0.5)))
    if mode == "TANH_APPROXIMATION":
        inner = np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x)
        return np.float32(0.5) * x * (1 + np.tanh(inner))
    if mode == "SIGMOID_APPROXIMATION":
        return x * sigmoid(np.float32(1.702) * x)
    raise ValueError(f"gelu mode {mode!r} is unknown")
