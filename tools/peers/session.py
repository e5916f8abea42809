"""Rounds in which every peer has its turn, in random order, in a process of its own that then ends."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sam_edge.bundle.golden import Golden
from sam_edge.errors import BackendError
from sam_edge.imaging.metrics import iou
from tools.peers.environments import ENVIRONMENTS

# Not the working directory: it may be a source tree, whose sam_edge/ is not the whole package.
_SAFE = ("-P",)
# What is measured, by the id of the peer.
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Attributes:
        id: its name there.
        adapter: a key of `ADAPTERS`.
        environment: a key of `ENVIRONMENTS`.
        model: what the adapter loads.
        has_everything: whether the package has an everything-mode.
        has_three_masks: whether its masks can be compared one by one with the reference's three.
    """

    id: str
    adapter: str
    environment: str
    model: dict[str, Any]
    has_everything: bool = True
    has_three_masks: bool = True


@dataclass
class Session:
    """Where and how peers run.

    Attributes:
        environments: the folder with an environment for each peer.
        package: a PYTHONPATH with this sam-edge.
        threads: of each peer.
        repeats: rounds.
        seconds: how long a turn lasts at least, in work measured.
        rng: the order of turns.
        after_turn: called after each turn, to keep what there is.
    """

    environments: Path
    package: Path
    threads: int
    repeats: int
    seconds: float
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    after_turn: Callable[[], None] = lambda: None

    def rounds(self, turns: Sequence[Callable[[], None]], repeats: int | None = None) -> None:
        """Every turn once a round, in random order."""
        for _ in range(self.repeats if repeats is None else repeats):
            for index in self.rng.permutation(len(turns)):
                turns[index]()
                self.after_turn()

    def start(self, peer: Peer) -> Process:
        """A fresh process with the peer's model loaded."""
        process = Process(peer, ENVIRONMENTS[peer.environment].python(self.environments), self.package)
        try:
            process.loaded = process.ask("load", peer=peer.adapter, model=peer.model, threads=self.threads)
        except BaseException:
            process.close()
            raise
        return process

    def images(self, peers: list[Peer], rows: Rows, image: Path) -> None:
        """Load; encode and click, first and then on; peak memory: a list of samples for each round."""

        def turn(peer: Peer) -> None:
            row = rows[peer.id]
            with self.start(peer) as process:
                process.ask("image", path=str(image))
                found = {"load_ms": [process.loaded["load_ms"]]}
                for what in ("encode", "click"):
                    found[f"first_{what}_ms"] = process.ask("time", what=what, seconds=0)["ms"]
                    found[f"{what}_ms"] = process.ask("time", what=what, seconds=self.seconds)["ms"]
                peak = process.ask("peak")
            found["peak_mb"] = [peak["peak_mb"]]
            row["loaded_mb"], row["versions"] = peak["loaded_mb"], process.loaded["versions"]
            for name, values in found.items():
                row.setdefault(name, []).append(values)

        self.rounds([partial(turn, peer) for peer in peers])

    def everything(self, peers: list[Peer], rows: Rows, image: Path, repeats: int, **options: Any) -> None:
        """Masks of everything, given arguments of `SamAutomaticMaskGenerator`; how long, how many."""

        def turn(peer: Peer) -> None:
            row = rows[peer.id]
            with self.start(peer) as process:
                process.ask("image", path=str(image))
                process.ask("time", what="everything", seconds=0, **{**options, "points_per_side": 2})
                found = process.ask("time", what="everything", seconds=0, **options)
                peak = process.ask("peak")["peak_mb"]
            row.setdefault("everything_ms", []).append(found["ms"])
            row.setdefault("everything_peak_mb", []).append([peak])
            row["everything_count"] = found["count"]

        self.rounds([partial(turn, peer) for peer in peers if peer.has_everything], repeats)

    def imports(self, peers: list[Peer], rows: Rows) -> None:
        """What a script's first lines take, in milliseconds beyond starting Python."""
        parts = str(self.package / "sam_edge" / "benchmarks" / "torchvision_parts.py")

        def milliseconds(python: Path, code: str) -> float:
            start = time.perf_counter()
            done = subprocess.run([str(python), *_SAFE, "-c", code], capture_output=True, text=True)
            if done.returncode:
                raise BackendError(f"{python} cannot run `{code}`: {done.stderr.strip().splitlines()[-1]}")
            return 1e3 * (time.perf_counter() - start)

        def turn(name: str) -> None:
            python = ENVIRONMENTS[name].python(self.environments)
            beyond = milliseconds(python, ENVIRONMENTS[name].start.format(parts=parts))
            beyond -= milliseconds(python, "pass")
            for peer in peers:
                if peer.environment == name:
                    rows[peer.id].setdefault("import_ms", []).append([beyond])

        names = dict.fromkeys(peer.environment for peer in peers)
        self.rounds([partial(turn, name) for name in names])


class Process:
    """A worker in a peer's environment."""

    def __init__(self, peer: Peer, python: Path, package: Path) -> None:
        self.peer = peer
        self.loaded: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [str(python), *_SAFE, "-m", "tools.peers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(package)},
        )

    def ask(self, do: str, **task: Any) -> dict[str, Any]:
        """The answer to a task.

        Raises:
            BackendError: the peer could not do it, or died.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **task}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise BackendError(f"{self.peer.id} ended with code {code} at `{do}`; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BackendError(f"{self.peer.id} failed at `{do}`: {answer['error']}")
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def agreement(
    session: Session, peers: list[Peer], reference: Peer, golden: Golden, rows: Rows, folder: Path
) -> None:
    """IoU of every peer's masks with the reference's, in `rows[id]["parity"]`.

    Images and prompts are the golden data's, without those that give a mask; masks are the logits above the
    threshold of the golden data, at the image's size. "mean_iou" and "min_iou" are of the mask that the
    reference scores best, "all_masks_*" of its three.
    """
    images = []
    for index, image in enumerate(golden.images):
        images.append(str(folder / f"golden-{index}.npy"))
        np.save(images[-1], image)
    chosen = [prompt for prompt in golden.prompts if prompt.mask_input is None]
    prompts = [
        {
            "image": prompt.image_index,
            "points": None if prompt.point_coords is None else prompt.point_coords.tolist(),
            "labels": None if prompt.point_labels is None else prompt.point_labels.tolist(),
            "box": None if prompt.box is None else prompt.box.tolist(),
        }
        for prompt in chosen
    ]
    expected: dict[str, Any] = {}
    for peer in [reference, *(p for p in peers if p is not reference and p.has_three_masks)]:
        out = folder / "logits.npz"
        with session.start(peer) as process:
            process.ask("logits", images=images, prompts=prompts, out=str(out))
        with np.load(out) as file:
            arrays = {name: file[name] for name in file.files}
        expected = expected or arrays
        every, picked = [], []
        for index, prompt in enumerate(chosen):
            masks = arrays[f"logits_{index}"] > prompt.threshold
            truth = expected[f"logits_{index}"] > prompt.threshold
            ious = [iou(a, b) for a, b in zip(masks, truth, strict=True)]
            best = int(expected[f"scores_{index}"].argmax())
            every += [value for value, mask in zip(ious, truth, strict=True) if mask.any()]
            picked += [ious[best]] if truth[best].any() else []
        rows[peer.id]["parity"] = {
            "reference": reference.id,
            "prompts": len(picked),
            "mean_iou": float(np.mean(picked)),
            "min_iou": float(np.min(picked)),
            "all_masks_mean_iou": float(np.mean(every)),
            "all_masks_min_iou": float(np.min(every)),
        }
        session.after_turn()


def installed_sizes(peers: list[Peer], session: Session) -> dict[str, dict[str, float]]:
    """Megabytes of each environment's distributions by name, without what lies there for the comparison."""
    code = "import json; from tools.peers.worker import megabytes; print(json.dumps(megabytes()))"
    sizes = {}
    for name in dict.fromkeys(peer.environment for peer in peers):
        environment = ENVIRONMENTS[name]
        done = subprocess.run(
            [str(environment.python(session.environments)), *_SAFE, "-c", code],
            env={**os.environ, "PYTHONPATH": str(session.package)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise BackendError(f"the environment {name} does not run: {done.stderr.strip()[-300:]}")
        beside = {one.partition("==")[0] for one in environment.beside}
        sizes[name] = {k: v for k, v in json.loads(done.stdout).items() if k not in beside}
    return sizes
