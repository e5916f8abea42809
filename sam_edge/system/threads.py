"""Work in several threads, for code that releases the interpreter lock: NumPy, inference runtimes, files."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")
Item = TypeVar("Item")


def cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_concurrently(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run `calls` at the same time and return their results in order.

    The first runs in this thread, each other in a thread of its own.

    Raises:
        The error of the first call that failed, after all have ended.
    """
    results: dict[int, Result] = {}
    errors: dict[int, BaseException] = {}

    def run(index: int) -> None:
        try:
            results[index] = calls[index]()
        except BaseException as error:
            errors[index] = error

    others = [threading.Thread(target=run, args=(index,)) for index in range(1, len(calls))]
    for other in others:
        other.start()
    run(0)
    for other in others:
        other.join()
    if errors:
        raise errors[min(errors)]
    return [results[index] for index in range(len(calls))]


def split_across_threads(work: Callable[[Sequence[Item]], None], items: Sequence[Item], threads: int) -> None:
    """Call `work` in up to `threads` threads, each with its part of `items`; raises as `run_concurrently`."""
    count = max(1, min(threads, len(items)))
    run_concurrently([partial(work, items[index::count]) for index in range(count)])
