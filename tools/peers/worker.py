"""The process of one peer, which answers tasks (see `sam_edge.benchmarks.measure.worker`).

    python -m tools.peers.worker      in the peer's environment

Tasks, by their "work":
    load        "peer" of `ADAPTERS`, its "model", "threads" -> "load_ms", "versions"
    image       "path" of an (H, W, 3) .npy, which the following tasks use
    time        "what": encode, click or everything; as often as fits in "seconds", at least once -> "ms"
    logits      "images", .npy files; "prompts", each with "image"; "out", the .npz to write
    peak        -> "peak_mb" of this process so far, and "loaded_mb" of the distributions that it imported
    installed   -> megabytes of every distribution, by name
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from collections.abc import Callable
from importlib.metadata import Distribution, distributions, packages_distributions
from pathlib import Path
from typing import Any

import numpy as np

from tools.peers.adapters import ADAPTERS, Adapter, Image

# Run as a file: importing sam-edge would add to the memory of its peers.
PROTOCOL = runpy.run_path(
    str(Path(__file__).parents[2] / "sam_edge" / "benchmarks" / "measure" / "worker.py")
)


class Worker:
    """Holds what the tasks work on: a model and an image."""

    def __init__(self) -> None:
        self._adapter: Adapter | None = None
        self._image: Image | None = None

    def load(self, peer: str, model: dict[str, Any], threads: int) -> dict[str, Any]:
        """Load a peer's model."""
        start = time.perf_counter()
        adapter: Any = ADAPTERS[peer]
        self._adapter = adapter(model, threads)
        return {"load_ms": 1e3 * (time.perf_counter() - start), "versions": self._loaded.versions()}

    def image(self, path: str) -> dict[str, Any]:
        """Read the image."""
        self._image = np.load(path)
        return {}

    def time(self, what: str, seconds: float, **options: Any) -> dict[str, Any]:
        """Milliseconds of each call of the adapter's `what`, and the last result where that is a count."""
        assert self._image is not None
        image = self._image
        height, width = image.shape[:2]
        work: dict[str, Callable[[], Any]] = {
            "encode": lambda: self._loaded.encode(image),
            "click": lambda: self._loaded.click(0.47 * width, 0.37 * height),
            "everything": lambda: self._loaded.everything(image, **options),
        }
        answers: list[Any] = []
        times = PROTOCOL["repeat"](lambda: answers.append(work[what]()), seconds)
        return {"ms": times, "count": answers[-1] if isinstance(answers[-1], int) else None}

    def logits(self, images: list[str], prompts: list[dict[str, Any]], out: str) -> dict[str, Any]:
        """Write `logits_N` and, where the peer has them, `scores_N` of every prompt."""
        arrays: dict[str, Any] = {}
        for number, path in enumerate(images):
            self._loaded.encode(np.load(path))
            for index, prompt in enumerate(prompts):
                if prompt["image"] == number:
                    arrays[f"logits_{index}"], scores = self._loaded.logits(prompt)
                    if scores is not None:
                        arrays[f"scores_{index}"] = scores
        np.savez(out, **arrays)
        return {}

    def peak(self) -> dict[str, Any]:
        """Peak memory, and the size of the imported distributions."""
        names = packages_distributions()
        imported = {module.partition(".")[0] for module in sys.modules}
        loaded = {one for module in imported for one in names.get(module, [])}
        return {"peak_mb": PROTOCOL["peak_rss_mb"](), "loaded_mb": megabytes(sorted(loaded))}

    @property
    def _loaded(self) -> Adapter:
        assert self._adapter is not None
        return self._adapter


def megabytes(names: list[str] | None = None) -> dict[str, float]:
    """The size of these distributions, by name, largest first; of all but the installers if None."""
    # A distribution may be on the path twice.
    found = {one.metadata["Name"]: one for one in distributions()}
    chosen = (
        [name for name in found if name not in ("pip", "setuptools", "wheel")] if names is None else names
    )
    sizes = {name: _bytes(found[name]) / 1e6 for name in chosen if name in found}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _bytes(distribution: Distribution) -> int:
    paths = (str(distribution.locate_file(file)) for file in distribution.files or [])
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))


def main() -> None:
    """Answer tasks until stdin ends."""
    worker = Worker()
    work: dict[str, Callable[..., Any]] = {
        "load": worker.load,
        "image": worker.image,
        "time": worker.time,
        "logits": worker.logits,
        "peak": worker.peak,
        "installed": lambda: megabytes(),
    }

    def with_arguments(do: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
        return lambda task: do(**{name: value for name, value in task.items() if name != "work"})

    PROTOCOL["serve"]({name: with_arguments(do) for name, do in work.items()})


if __name__ == "__main__":
    main()
