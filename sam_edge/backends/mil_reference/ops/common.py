"""Types and conversions that the operators share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Operation = Callable[..., Any]


def to_axes(axes: Any) -> tuple[int, ...] | None:
    """Convert MIL's `axes`, a number or an array, to NumPy's; None stays None."""
    return None if axes is None else tuple(int(axis) for axis in np.atleast_1d(axes))
