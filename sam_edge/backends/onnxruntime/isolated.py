"""ONNX Runtime sessions in a child process.

Qualcomm's compiler, which the simulation of its NPU runs for every graph, aborts its process on graphs that
it does not support. In a child that becomes a `CrashError`, and the caller continues.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ... import errors
from ...errors import BackendError, CrashError
from ...system.process import python_command
from ...types import Arrays
from ..base import Session
from .session import open_in_process


class _Child:
    """A child process that answers each pickled request with a pickled reply; both ends are this module."""

    def __init__(self, graph: str) -> None:
        self._graph = graph
        self._lock = threading.Lock()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            python_command(__name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
        )

    def request(self, message: Any) -> Any:
        """Send a message and return the reply.

        Raises:
            SamEdgeError: what the child raised.
            CrashError: the child ended instead of replying.
        """
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None and replies is not None
        with self._lock:
            try:
                pickle.dump(message, requests, 5)
                requests.flush()
                error_class, reply = pickle.load(replies)
            except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
                raise CrashError(self._describe_crash()) from error
            except BaseException:
                # Half a reply may be left in the pipe.
                self.close()
                raise
        if error_class:
            raise getattr(errors, error_class)(reply)
        return reply

    def _describe_crash(self) -> str:
        self._process.kill() if self._process.poll() is None else None
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()}" if lines else ""
        return (
            f"the NPU's compiler or simulator ended its process ({how}) at {self._graph}{last}; only this "
            "variant is affected: leave it out"
        )

    def close(self) -> None:
        """Kill the process: a compiler may be minutes from its next read of the pipe."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:
                # Buffered data that nobody reads any more.
                pass


def open_isolated(path: Path, **options: Any) -> Session:
    """As `open_in_process(path, **options)`, in a child process.

    Raises:
        CrashError: the child crashed.
        BackendError, DeviceError: as there.
    """
    child = _Child(f"{path.parent.name}/{path.name}")
    try:
        device, *placements = child.request({"path": path, **options})
    except BaseException:
        child.close()
        raise

    def run(inputs: Arrays) -> Arrays:
        outputs: Arrays = child.request(inputs)
        return outputs

    return Session(run, device, child.close, *placements)


def main() -> None:
    """Run the child: open the graph of the first message, then run it on the inputs of each later one."""
    replies = os.fdopen(os.dup(1), "wb")
    # What libraries print must not get among the replies.
    os.dup2(2, 1)
    # Ctrl-C is for the parent, which then kills this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    session: Session | None = None

    def send(handle: Callable[[], Any]) -> None:
        try:
            reply = "", handle()
        except errors.SamEdgeError as error:
            reply = type(error).__name__, str(error)
        except Exception as error:
            reply = BackendError.__name__, f"{type(error).__name__}: {' '.join(str(error).split())}"
        pickle.dump(reply, replies, 5)
        replies.flush()

    def open_graph(options: dict[str, Any]) -> Any:
        nonlocal session
        session = open_in_process(**options)
        return session.device, session.placement, session.compute_placement

    def run_graph(inputs: Arrays) -> Arrays:
        assert session is not None
        return session.run(inputs)

    handle: Callable[[Any], Any] = open_graph
    while True:
        try:
            message = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        send(lambda message=message, handle=handle: handle(message))  # type: ignore[misc]
        handle = run_graph
    # Skips the libraries' own clean-up, which may crash.
    os._exit(0)
