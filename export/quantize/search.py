"""Which operators to keep in float so that INT8 still makes the reference's masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Parity = dict[str, Any]


def keep_few(
    ranking: Sequence[str],
    start: int,
    measure: Callable[[Sequence[str]], Parity],
    enough: Callable[[Parity], bool],
) -> tuple[list[str], Parity, bool]:
    """The shortest head of `ranking` that `measure` finds `enough` when kept in float.

    The count doubles until it is enough, then is halved back: a handful of measurements. More in
    float is nearly always more exact; where it is not, the result is still one that was measured.

    Args:
        ranking: operator names, the most sensitive first.
        start: how many to keep at first.
        measure: kept names -> parity.
        enough: parity -> whether to stop.

    Returns:
        The names kept, their parity, and whether it was enough; if not, the best that was seen.
    """
    seen: dict[int, Parity] = {}

    def reached(count: int) -> bool:
        seen[count] = measure(ranking[:count])
        return enough(seen[count])

    low, high = start - 1, start
    while not reached(high):
        if high == len(ranking):
            best = max(seen, key=lambda count: (seen[count]["mean_iou"], -count))
            return list(ranking[:best]), seen[best], False
        low, high = high, min(len(ranking), max(1, 2 * high))
    while high - low > 1:
        middle = (low + high) // 2
        if reached(middle):
            high = middle
        else:
            low = middle
    return list(ranking[:high]), seen[high], True
