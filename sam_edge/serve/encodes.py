"""Pictures are encoded one at a time, off the event loop, and only so many wait."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class FullError(Exception):
    """All places are taken; one may be free again in `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"full; again in {retry_after} s")
        self.retry_after = retry_after


class GoneError(Exception):
    """Whoever asked has left."""


class Encodes:
    """One thread for what takes long, and places for requests: those that send, wait and are worked on.

    Everything but the work itself happens on the event loop's thread.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0
        self._seconds = 1.0
        self._thread = ThreadPoolExecutor(1, "encode")

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A request's place, from before its body is read: so many bodies are in memory, and no more.

        Raises:
            FullError: there is none.
        """
        if self._taken >= self._places:
            raise FullError(max(1, math.ceil(self._seconds)))
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(self, work: Callable[[], Answer], gone: Coroutine[Any, Any, None]) -> Answer:
        """`work()` in the thread; while it waits there for its turn, it is dropped as soon as `gone` is done.

        Raises:
            GoneError: `gone` was done first. Work that had begun goes on by itself.
        """

        def timed() -> tuple[Answer, float]:
            start = time.perf_counter()
            return work(), time.perf_counter() - start

        job = asyncio.wrap_future(self._thread.submit(timed))
        left = asyncio.create_task(gone)
        both: set[asyncio.Future[Any]] = {job, left}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                raise GoneError
            answer, self._seconds = job.result()
            return answer
        finally:
            for task in both:
                task.cancel()

    def close(self) -> None:
        """Drop what waits, and wait for what runs."""
        self._thread.shutdown(cancel_futures=True)
