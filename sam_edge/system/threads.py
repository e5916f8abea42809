"""Several calls at once, in threads: of use where they leave the interpreter to each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

Made = TypeVar("Made")
Piece = TypeVar("Piece")


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def together(calls: Sequence[Callable[[], Made]]) -> list[Made]:
    """What each of `calls` returns: the first runs in this thread, each other in one of its own.

    Raises:
        What the first that failed of them raised, when all have ended.
    """
    made: dict[int, Made] = {}
    failed: dict[int, BaseException] = {}

    def run(number: int) -> None:
        try:
            made[number] = calls[number]()
        except BaseException as error:
            failed[number] = error

    others = [threading.Thread(target=run, args=(number,)) for number in range(1, len(calls))]
    for other in others:
        other.start()
    run(0)
    for other in others:
        other.join()
    if failed:
        raise failed[min(failed)]
    return [made[number] for number in range(len(calls))]


def share(work: Callable[[Sequence[Piece]], None], pieces: Sequence[Piece], threads: int) -> None:
    """Let `threads` threads do some of the pieces each; raises as `together`."""
    count = max(1, min(threads, len(pieces)))
    together([partial(work, pieces[number::count]) for number in range(count)])
