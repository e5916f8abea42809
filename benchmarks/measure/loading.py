"""Opens a row of the benchmark, with a clock on its two sessions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from sam_edge.backends import Backend, Session, get_backend
from sam_edge.bundle.bundle import Bundle, open_bundle
from sam_edge.bundle.variant import Variant
from sam_edge.runtime.opener import OpenedGraphs, open_graph
from sam_edge.runtime.sam import Sam
from sam_edge.types import Arrays

from .worker import Task


class TimedSession:
    """A session that keeps how long each run took, in milliseconds."""

    def __init__(self, session: Session) -> None:
        self.times: list[float] = []
        self.inner = session
        self.session = Session(self._run, session.device, session.close)

    def _run(self, inputs: Arrays) -> Arrays:
        start = time.perf_counter()
        outputs = self.inner.run(inputs)
        self.times.append(1e3 * (time.perf_counter() - start))
        return outputs

    def take(self) -> float:
        """The milliseconds of all runs since the last call."""
        total, self.times = sum(self.times), []
        return total


@dataclass(frozen=True)
class LoadedRow:
    """A row that is ready to run.

    Attributes:
        sam: the model; its sessions are the two below.
        encoder, decoder: its sessions, timed.
        load_ms: from nothing to `sam`: reading the bundle, checking its files, importing the runtime.
        compile_ms: the part of `load_ms` in which the runtime opens the two graphs.
    """

    sam: Sam
    encoder: TimedSession
    decoder: TimedSession
    load_ms: float
    compile_ms: float


def open_row(task: Task) -> tuple[Bundle, Variant, Backend]:
    """The bundle, the variant and the backend that a task names."""
    bundle = open_bundle(Path(task["bundle"]))
    if task["backend"] == "pytorch":
        from .pytorch import PyTorch, variant_of

        name, size = task["variant"], bundle.manifest.input.size[0]
        return bundle, variant_of(bundle, name), PyTorch(name, Path(task["reference"]), size)
    return bundle, bundle.variant(task["variant"]), get_backend(task["backend"])


def load_row(task: Task) -> LoadedRow:
    """Load the row that a task names: its "bundle", "variant", "backend", "device" and "threads"."""
    start = time.perf_counter()
    bundle, variant, backend = open_row(task)
    bundle.check_files(variant)
    backend.devices()  # imports the runtime
    before = time.perf_counter()
    encoder, decoder = (
        TimedSession(
            open_graph(bundle, variant, variant.graphs[part].path, backend, task["device"], task["threads"])
        )
        for part in ("encoder", "decoder")
    )
    end = time.perf_counter()
    sessions = {"encoder": encoder.session, "decoder": decoder.session}
    sam = Sam(OpenedGraphs(bundle, variant, backend.name, sessions))
    return LoadedRow(sam, encoder, decoder, 1e3 * (end - start), 1e3 * (end - before))
