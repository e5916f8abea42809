"""A graph of ONNX Runtime in a process of its own.

Qualcomm's compiler, which the simulation of its NPU runs for every graph, ends the process that it is in when
it does not like one. Here that is a `CrashError`, and the caller goes on.
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

from .. import errors
from ..errors import BackendError, CrashError
from ..types import Arrays
from .base import Session


def python_with(module: str) -> list[str]:
    """The command that runs `main` of a module of sam-edge, this very one: with this process's path."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main()"
    return [sys.executable, "-c", code]


class _Child:
    """A process that answers one pickled thing with another; both sides of the pipes are ours."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._turn = threading.Lock()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            python_with(__name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )

    def ask(self, thing: Any) -> Any:
        """What the process makes of `thing`.

        Raises:
            SamEdgeError: what it raised.
            CrashError: it ended instead.
        """
        tasks, answers = self._process.stdin, self._process.stdout
        assert tasks is not None and answers is not None
        with self._turn:
            try:
                pickle.dump(thing, tasks, 5)
                tasks.flush()
                kind, answer = pickle.load(answers)
            except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
                raise CrashError(self._how()) from error
            except BaseException:
                # Half an answer may be left in the pipe.
                self.close()
                raise
        if kind:
            raise getattr(errors, kind)(answer)
        return answer

    def _how(self) -> str:
        self._process.kill() if self._process.poll() is None else None
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()}" if lines else ""
        return (
            f"the NPU's compiler or simulator ended its process ({how}) at {self._what}{last}; only this "
            "variant is lost: leave it out"
        )

    def close(self) -> None:
        """End the process, at once: a compiler may be minutes from its next look at the pipe."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:
                # What was still to be written has no reader.
                pass


def open_isolated(path: Path, **task: Any) -> Session:
    """As `OnnxRuntime.open_here(path, **task)`, in a process of its own.

    Raises:
        CrashError: the process ended.
        BackendError, DeviceError: as there.
    """
    child = _Child(f"{path.parent.name}/{path.name}")
    try:
        device, *placements = child.ask({"path": path, **task})
    except BaseException:
        child.close()
        raise

    def run(inputs: Arrays) -> Arrays:
        outputs: Arrays = child.ask(inputs)
        return outputs

    return Session(run, device, child.close, *placements)


def main() -> None:
    """The process: a task, then inputs until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "wb")
    # What libraries print is no answer.
    os.dup2(2, 1)
    # Ctrl-C is the parent's, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    session: Session | None = None

    def answer(work: Callable[[], Any]) -> None:
        try:
            reply = "", work()
        except errors.SamEdgeError as error:
            reply = type(error).__name__, str(error)
        except Exception as error:
            reply = BackendError.__name__, f"{type(error).__name__}: {' '.join(str(error).split())}"
        pickle.dump(reply, answers, 5)
        answers.flush()

    def opened(task: dict[str, Any]) -> Any:
        nonlocal session
        from .onnxruntime import BACKEND

        session = BACKEND.open_here(**task)
        return session.device, session.placement, session.compute_placement

    def made(inputs: Arrays) -> Arrays:
        assert session is not None
        return session.run(inputs)

    work: Callable[[Any], Any] = opened
    while True:
        try:
            thing = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        answer(lambda thing=thing, work=work: work(thing))  # type: ignore[misc]
        work = made
    # Not by way of the libraries' own clean-up, which may crash.
    os._exit(0)
