"""Search for the fewest operators to exclude from INT8 such that the masks still match the reference's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Parity = dict[str, Any]


def search_nodes_to_exclude(
    ranking: Sequence[str],
    start: int,
    measure: Callable[[Sequence[str]], Parity],
    enough: Callable[[Parity], bool],
) -> tuple[list[str], Parity, bool]:
    """Find the shortest prefix of `ranking` that suffices when it is excluded from INT8.

    The length doubles until it suffices and is then bisected, in a handful of measurements. Excluding more
    operators is nearly always more accurate; where it is not, the result is still one that was measured.

        >>> search_nodes_to_exclude(["a", "b", "c"], 1, measure, lambda parity: parity["mean_iou"] > 0.95)
        (["a", "b"], {"mean_iou": 0.96}, True)

    Args:
        ranking: operator names, the most sensitive first.
        start: number of operators to exclude at first.
        measure: measures parity with the given operators excluded.
        enough: whether a parity suffices.

    Returns:
        The names to exclude, the parity measured with them, and whether it suffices. If no prefix does, the
        one with the best mean IoU of those measured.
    """
    measured: dict[int, Parity] = {}

    def suffices(count: int) -> bool:
        measured[count] = measure(ranking[:count])
        return enough(measured[count])

    low, high = start - 1, start
    while not suffices(high):
        if high == len(ranking):
            best = max(measured, key=lambda count: (measured[count]["mean_iou"], -count))
            return list(ranking[:best]), measured[best], False
        low, high = high, min(len(ranking), max(1, 2 * high))
    while high - low > 1:
        middle = (low + high) // 2
        if suffices(middle):
            high = middle
        else:
            low = middle
    return list(ranking[:high]), measured[high], True
