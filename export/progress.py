"""Progress callbacks of an export."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Callbacks for the progress of an export; by default they do nothing."""

    def begin(self, step: str) -> None:
        """A step starts."""

    def end(self, step: str, seconds: float, detail: str) -> None:
        """A step is done."""

    def warn(self, message: str) -> None:
        """Something the user should know of."""


@contextmanager
def step(progress: Progress, name: str) -> Iterator[list[str]]:
    """Time one step of an export; what is appended to the list is its detail."""
    progress.begin(name)
    start = time.perf_counter()
    detail: list[str] = []
    yield detail
    progress.end(name, time.perf_counter() - start, ", ".join(detail))
