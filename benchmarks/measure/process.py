"""Fresh processes for measurements: each has memory of its own, and a crash ends one measurement only."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sam_edge.errors import SamEdgeError
from sam_edge.system.process import python_command

# No measurement takes longer; one that does has hung.
TIMEOUT_S = 3600.0


class ProcessError(SamEdgeError):
    """A measuring process that answered with an error, crashed or did not answer in time."""


class MeasuringProcess:
    """A fresh process that runs `worker.serve`. Close it, or use it in a `with` statement.

    Args:
        command: what starts it.
        environment: its environment variables; None for this process's own.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=environment,
        )

    def ask(self, task: Mapping[str, Any], timeout: float = TIMEOUT_S) -> Any:
        """Send a task and wait for its answer, at most `timeout` seconds.

        Raises:
            ProcessError: the answer is an error, or the process ended without one.
        """
        tasks, answers = self._process.stdin, self._process.stdout
        assert tasks is not None and answers is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout, stop)
        timer.start()
        line = ""
        try:
            with suppress(BrokenPipeError):
                tasks.write(json.dumps(task) + "\n")
                tasks.flush()
                line = answers.readline()
        except BaseException:
            self._process.kill()
            raise
        finally:
            timer.cancel()
        if not line:
            raise ProcessError(f"it had not ended after {timeout:.0f} s" if late.is_set() else self._end())
        answer = json.loads(line)
        if "error" in answer:
            raise ProcessError(str(answer["error"]))
        return answer["ok"]

    def _end(self) -> str:
        """How the process ended, with the last line that it wrote to stderr."""
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended with {how}{': ' + lines[-1] if lines else ''}"

    def close(self) -> None:
        """Let the process end, and wait for it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def __enter__(self) -> MeasuringProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_task(
    module: str,
    task: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT_S,
) -> Any:
    """Do one task in a fresh process of this Python, in which `main` of `module` calls `worker.serve`.

    Raises:
        ProcessError: see `MeasuringProcess.ask`.
    """
    with MeasuringProcess(python_command(module), environment) as process:
        return process.ask(task, timeout)


def time_command(command: Sequence[str]) -> float:
    """Run a command from start to end, and return the milliseconds that it took.

    Raises:
        ProcessError: it failed; says the last line that it wrote to stderr.
    """
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    taken = 1e3 * (time.perf_counter() - start)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ProcessError(f"`{' '.join(command)}` failed: {lines[-1]}")
    return taken
