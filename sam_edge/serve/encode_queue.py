"""A bounded queue that encodes one image at a time, off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class QueueFullError(Exception):
    """All slots are taken; one may be free in `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class ClientGoneError(Exception):
    """The client disconnected before it had its answer."""


class EncodeQueue:
    """One worker thread, and a bounded number of slots for requests: uploading, waiting or being encoded.

    Everything but the work itself happens on the event loop's thread.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._taken = 0
        self._last_seconds = 1.0
        self._worker = ThreadPoolExecutor(1, "encode")

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot for one request, from before its body is read: this bounds the bodies in memory.

        Raises:
            QueueFullError: no slot is free.
        """
        if self._taken >= self._capacity:
            raise QueueFullError(max(1, math.ceil(self._last_seconds)))
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(self, work: Callable[[], Result], disconnected: Coroutine[Any, Any, None]) -> Result:
        """Run `work()` on the worker thread; drop it if `disconnected` ends while it waits for its turn.

        Raises:
            ClientGoneError: `disconnected` ended first. Work that had begun continues unattended.
        """

        def timed() -> tuple[Result, float]:
            start = time.perf_counter()
            return work(), time.perf_counter() - start

        job = asyncio.wrap_future(self._worker.submit(timed))
        watcher = asyncio.create_task(disconnected)
        both: set[asyncio.Future[Any]] = {job, watcher}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                raise ClientGoneError
            result, self._last_seconds = job.result()
            return result
        finally:
            for task in both:
                task.cancel()

    def close(self) -> None:
        """Drop waiting work and wait for running work."""
        self._worker.shutdown(cancel_futures=True)
