"""Interleaved rounds: everything that is compared has its turn in each round, in random order.

A machine that becomes slower, or another load on it, then does so to all alike. Compare medians, and quote
their ratios.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Key = TypeVar("Key")
Found = TypeVar("Found")


def shuffled_rounds(
    items: Sequence[Item], rounds: int, order: random.Random | int = 0
) -> Iterator[list[Item]]:
    """Yield every item once a round, each round in another order.

    Args:
        items: what takes turns.
        rounds: how many.
        order: what shuffles, or its seed.
    """
    shuffle = random.Random(order) if isinstance(order, int) else order
    for _ in range(rounds):
        yield shuffle.sample(items, len(items))


def sample_in_rounds(
    work: Mapping[Key, Callable[[], Found]],
    rounds: int,
    warmup: int = 1,
    order: random.Random | int = 0,
) -> dict[Key, list[Found]]:
    """Run everything in `work` once a round, in random order, and collect what each run returns.

    Args:
        work: what takes turns, by name.
        rounds: how many count.
        warmup: rounds before them whose results are dropped.
        order: what shuffles, or its seed.
    """
    found: dict[Key, list[Found]] = {key: [] for key in work}
    for number, keys in enumerate(shuffled_rounds(list(work), warmup + rounds, order)):
        for key in keys:
            result = work[key]()
            if number >= warmup:
                found[key].append(result)
    return found


def median(rounds: Sequence[Sequence[float]]) -> float:
    """The median of all samples of all rounds."""
    return float(np.median([value for samples in rounds for value in samples]))


def ratio(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """The median of `a` over the median of `b`, each a list of samples for each round."""
    return median(a) / median(b)
