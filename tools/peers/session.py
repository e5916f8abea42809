"""Measures peers in interleaved rounds, each turn in a fresh process in the environment of the peer."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sam_edge.benchmarks.measure.interleave import shuffled_rounds
from sam_edge.benchmarks.measure.process import MeasuringProcess, ProcessError, time_command
from sam_edge.bundle.golden import Golden, GoldenPrompt
from sam_edge.errors import BackendError
from sam_edge.imaging.metrics import iou
from tools.peers.environments import ENVIRONMENTS, torchvision_parts

# Keeps the working directory off the path: it may be another source tree.
_SAFE = ("-P",)
# What was measured, by the id of the peer.
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Peer:
    """A row of the table.

    Attributes:
        id: its name in the table.
        adapter: a key of `ADAPTERS`.
        environment: a key of `ENVIRONMENTS`.
        model: the adapter's arguments.
        has_everything: whether the package has an everything-mode.
        has_three_masks: whether its masks can be compared one by one with the three of the reference.
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
        package: a PYTHONPATH with this sam-edge and its tools.
        threads: of each peer.
        repeats: how many rounds.
        seconds: how long each measurement of a turn lasts.
        order: shuffles the turns of a round.
        after_turn: called after each turn, to save what was measured.
    """

    environments: Path
    package: Path
    threads: int
    repeats: int
    seconds: float
    order: random.Random = field(default_factory=lambda: random.Random(0))
    after_turn: Callable[[], None] = lambda: None

    def rounds(self, turns: Sequence[Callable[[], None]], repeats: int | None = None) -> None:
        """Take every turn once a round, in random order."""
        for order in shuffled_rounds(turns, self.repeats if repeats is None else repeats, self.order):
            for turn in order:
                turn()
                self.after_turn()

    def start(self, peer: Peer) -> PeerProcess:
        """A fresh process with the peer's model loaded."""
        process = self.open(peer)
        try:
            process.loaded = process.ask("load", peer=peer.adapter, model=peer.model, threads=self.threads)
        except BaseException:
            process.close()
            raise
        return process

    def open(self, peer: Peer) -> PeerProcess:
        """A fresh process in the peer's environment."""
        return PeerProcess(peer, ENVIRONMENTS[peer.environment].python(self.environments), self.package)

    def images(self, peers: list[Peer], rows: Rows, image: Path) -> None:
        """Measure load, first and further encodes and clicks, and peak memory: samples for each round."""

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
        """Measure masks of everything: their time, memory and number.

        Args:
            peers: those without an everything-mode are left out.
            rows: gets the results.
            image: an (H, W, 3) .npy.
            repeats: how many rounds.
            **options: of `SamAutomaticMaskGenerator`.
        """

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
        """Measure what a script's imports take, in milliseconds beyond starting Python."""
        parts = str(torchvision_parts(self.package))

        def turn(name: str) -> None:
            python = str(ENVIRONMENTS[name].python(self.environments))
            code = ENVIRONMENTS[name].start.format(parts=parts)
            try:
                beyond = time_command([python, *_SAFE, "-c", code]) - time_command([python, *_SAFE, "-c", ""])
            except ProcessError as error:
                raise BackendError(str(error)) from error
            for peer in peers:
                if peer.environment == name:
                    rows[peer.id].setdefault("import_ms", []).append([beyond])

        names = dict.fromkeys(peer.environment for peer in peers)
        self.rounds([partial(turn, name) for name in names])


class PeerProcess:
    """A process in the environment of a peer."""

    def __init__(self, peer: Peer, python: Path, package: Path) -> None:
        self.peer = peer
        self.loaded: dict[str, Any] = {}
        self._process = MeasuringProcess(
            [str(python), *_SAFE, "-m", "tools.peers.worker"], {**os.environ, "PYTHONPATH": str(package)}
        )

    def ask(self, work: str, **task: Any) -> Any:
        """The answer to a task.

        Raises:
            BackendError: the peer could not do it, or its process ended.
        """
        try:
            return self._process.ask({"work": work, **task})
        except ProcessError as error:
            raise BackendError(f"{self.peer.id} failed at `{work}`: {error}") from error

    def close(self) -> None:
        """Let the process end, and wait for it."""
        self._process.close()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def agreement(session: Session, peers: list[Peer], golden: Golden, rows: Rows, folder: Path) -> None:
    """Compare every peer's masks with those of the first, the reference: `rows[id]["parity"]`.

    Images and prompts are the golden data's, without prompts that have a mask; masks are the logits above the
    golden data's threshold, at the image's size. "mean_iou" and "min_iou" are of the mask that the reference
    scores highest, "all_masks_*" of all three.
    """
    reference = peers[0]
    images = []
    for index, image in enumerate(golden.images):
        images.append(str(folder / f"golden-{index}.npy"))
        np.save(images[-1], image)
    chosen = [prompt for prompt in golden.prompts if prompt.mask_input is None]
    prompts = [_as_json(prompt) for prompt in chosen]
    expected: dict[str, Any] = {}
    for peer in [reference, *(p for p in peers[1:] if p.has_three_masks)]:
        out = folder / "logits.npz"
        with session.start(peer) as process:
            process.ask("logits", images=images, prompts=prompts, out=str(out))
        with np.load(out) as file:
            found = {name: file[name] for name in file.files}
        expected = expected or found
        rows[peer.id]["parity"] = {"reference": reference.id, **_parity(chosen, found, expected)}
        session.after_turn()


def _as_json(prompt: GoldenPrompt) -> dict[str, Any]:
    arrays = {"points": prompt.point_coords, "labels": prompt.point_labels, "box": prompt.box}
    lists = {name: None if array is None else array.tolist() for name, array in arrays.items()}
    return {"image": prompt.image_index, **lists}


def _parity(prompts: list[GoldenPrompt], found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    every, picked = [], []
    for index, prompt in enumerate(prompts):
        masks, truth = (arrays[f"logits_{index}"] > prompt.threshold for arrays in (found, expected))
        ious = [iou(a, b) for a, b in zip(masks, truth, strict=True)]
        best = int(expected[f"scores_{index}"].argmax())
        every += [value for value, mask in zip(ious, truth, strict=True) if mask.any()]
        picked += [ious[best]] if truth[best].any() else []
    return {
        "prompts": len(picked),
        "mean_iou": float(np.mean(picked)),
        "min_iou": float(np.min(picked)),
        "all_masks_mean_iou": float(np.mean(every)),
        "all_masks_min_iou": float(np.min(every)),
    }


def installed_sizes(peers: list[Peer], session: Session) -> dict[str, dict[str, float]]:
    """Megabytes of each environment's distributions, without those that only this comparison needs."""
    sizes: dict[str, dict[str, float]] = {}
    for peer in peers:
        name = peer.environment
        if name in sizes:
            continue
        try:
            with session.open(peer) as process:
                found = process.ask("installed")
        except BackendError as error:
            raise BackendError(f"the environment {name} does not run: {error}") from error
        beside = {one.partition("==")[0] for one in ENVIRONMENTS[name].beside}
        sizes[name] = {key: value for key, value in found.items() if key not in beside}
    return sizes
