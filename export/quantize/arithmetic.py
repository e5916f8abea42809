"""INT8 arithmetic shared by every format: rounding weights, activation statistics, bias correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Largest magnitude of a weight in 8 bits, and in 7 bits (reduce_range): without VNNI, x86 accumulates pairs
# of products of bytes in 16 bits, which saturate unless the weights have 7 bits.
QMAX_INT8, QMAX_INT7 = 127, 63
SMALLEST_SCALE = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class ActivationStats:
    """Statistics of a tensor over the calibration inputs.

    Attributes:
        low: smallest value.
        high: largest value.
        mean: (channels,) float64, the mean value of each channel.
    """

    low: float
    high: float
    mean: NDArray[np.float64]

    @property
    def range_with_zero(self) -> tuple[float, float]:
        """The range of values extended to 0, as asymmetric quantization with an exact zero requires."""
        return min(self.low, 0.0), max(self.high, 0.0)


def quantize_weight(
    weight: NDArray[np.float32], axes: tuple[int, ...], qmax: int = QMAX_INT8
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a weight to integers from -qmax to qmax, symmetrically.

    Args:
        weight: of any shape.
        axes: each slice along these axes has its own scale.
        qmax: largest magnitude of an integer.

    Returns:
        The integers, of the weight's shape, and the scales, broadcastable to it.
    """
    others = tuple(i for i in range(weight.ndim) if i not in axes)
    scale = np.maximum(np.abs(weight).max(others, keepdims=True) / qmax, SMALLEST_SCALE).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def bias_correction(error: NDArray[np.float32], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean change of a layer's outputs caused by rounding its weights, to subtract from its bias.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019.

    Args:
        error: (outputs, inputs of a group, ...) rounded minus exact weights of a convolution or, with one
            group, of a linear layer.
        mean: (inputs,) mean of each input channel.

    Returns:
        (outputs,) mean change of each output.
    """
    groups = mean.size // error.shape[1]
    means = np.repeat(mean.reshape(groups, -1), len(error) // groups, axis=0)
    return np.asarray((error.reshape(*error.shape[:2], -1).sum(2) * means).sum(1))
