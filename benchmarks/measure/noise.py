"""Intervals for ratios of latencies, from the medians of the rounds of a benchmark.

A round's medians are taken as lognormal: what disturbs a machine multiplies times. The functions take
logarithms, and need NumPy only, so Student's quantiles are computed here.
"""

from __future__ import annotations

import math
from functools import lru_cache


def t_survival(t: float, dof: float) -> float:
    """P(T > t) of Student's distribution with `dof` degrees of freedom, for t >= 0."""
    return 0.5 * _incomplete_beta(dof / (dof + t * t), dof / 2, 0.5)


@lru_cache(maxsize=1024)
def t_quantile(tail: float, dof: float) -> float:
    """The t that a Student's variable exceeds with probability `tail`, 0 < tail < 0.5."""
    low, high = 0.0, 1.0
    while t_survival(high, dof) > tail:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_survival(middle, dof) > tail else (low, middle)
    return high


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 1000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + term * d, tiny)
            c = _away(1 + term / c, tiny)
            fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return math.exp(log_front) * fraction / a


def _away(value: float, tiny: float) -> float:
    return tiny if abs(value) < tiny else value
