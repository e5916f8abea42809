"""The side of a measuring process: answers tasks from stdin, measures time and memory.

Imports the standard library only, so that environments without sam-edge can run it as a file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Task = dict[str, Any]


def serve(
    work: Mapping[str, Callable[[Task], Any]], expected: type[Exception] | tuple[type[Exception], ...] = ()
) -> None:
    """Answer tasks until stdin ends; what libraries print goes to stderr.

    A task and its answer are a line of JSON each: `{"work": NAME, ...}`, then `{"ok": ...}` or
    `{"error": MESSAGE}`. An exception that is not expected ends the process.

    Args:
        work: the function for each name; it is called with the task.
        expected: errors whose message is the answer; running out of memory is one of them.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        task = json.loads(line)
        try:
            answer = {"ok": work[task["work"]](task)}
        except MemoryError as error:
            answer = {"error": f"out of memory: {error}"}
        except expected as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def milliseconds(call: Callable[[], object]) -> float:
    """Run `call` once, and return how long it took."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def repeat(call: Callable[[], object], seconds: float) -> list[float]:
    """Run `call` as often as fits in `seconds`, at least once; milliseconds of each run."""
    end = time.perf_counter() + seconds
    found = [milliseconds(call)]
    while time.perf_counter() < end:
        found.append(milliseconds(call))
    return found


def peak_rss_mb() -> float | None:
    """The most memory that this process has held, in MB; None where the system does not say.

    On Linux `ru_maxrss` of a child begins with its parent's; VmHWM does not.
    """
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
