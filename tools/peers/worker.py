"""One peer's process: a JSON task a line on stdin, a JSON answer a line on stdout.

    python -m tools.peers.worker      in the peer's environment

Tasks, by their "do":
    load        "peer" of `ADAPTERS`, its "model", "threads" -> "load_ms", "versions"
    image       "path" of an (H, W, 3) .npy, to be worked on from here on
    time        "what": encode, click or everything; as often as fits in "seconds", once at least -> "ms"
    logits      "images", .npy files; "prompts", each with "image"; "out", an .npz to be written
    peak        -> "peak_mb" of this process so far, and "loaded_mb" of the distributions that it imported
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import Distribution, distributions, packages_distributions
from typing import Any

import numpy as np

from tools.peers.adapters import ADAPTERS, Adapter, Image


class Worker:
    """What the tasks work on: a model and an image."""

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
        """Milliseconds of each call of an adapter's `what`, and what the last one gave if that is a count."""
        assert self._image is not None
        image = self._image
        height, width = image.shape[:2]
        work: dict[str, Callable[[], Any]] = {
            "encode": lambda: self._loaded.encode(image),
            "click": lambda: self._loaded.click(0.47 * width, 0.37 * height),
            "everything": lambda: self._loaded.everything(image, **options),
        }
        times: list[float] = []
        while not times or sum(times) < 1e3 * seconds:
            start = time.perf_counter()
            answer = work[what]()
            times.append(1e3 * (time.perf_counter() - start))
        return {"ms": times, "count": answer if isinstance(answer, int) else None}

    def logits(self, images: list[str], prompts: list[dict[str, Any]], out: str) -> dict[str, Any]:
        """Write `logits_N` and, where there are some, `scores_N` of every prompt."""
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
        """Peak memory, and the size of what was imported."""
        names = packages_distributions()
        imported = {module.partition(".")[0] for module in sys.modules}
        loaded = {one for module in imported for one in names.get(module, [])}
        return {"peak_mb": peak_memory() / 1e6, "loaded_mb": megabytes(sorted(loaded))}

    @property
    def _loaded(self) -> Adapter:
        assert self._adapter is not None
        return self._adapter


def peak_memory() -> int:
    """Bytes that this process has had in memory at most.

    On Linux of this program alone: ru_maxrss begins with the peak of the process that started it.
    """
    try:
        with open("/proc/self/status") as file:
            return int(file.read().split("VmHWM:")[1].split()[0]) * 1024
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def megabytes(names: list[str] | None = None) -> dict[str, float]:
    """The size of distributions by name, largest first: of all here but the installers if not named."""
    # A distribution that is on the path twice is the same one.
    here = {one.metadata["Name"]: one for one in distributions()}
    chosen = [name for name in here if name not in ("pip", "setuptools", "wheel")] if names is None else names
    sizes = {name: _bytes(here[name]) / 1e6 for name in chosen if name in here}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _bytes(distribution: Distribution) -> int:
    paths = (str(distribution.locate_file(file)) for file in distribution.files or [])
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))


def main() -> None:
    """Answer tasks until stdin ends. What libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        task = json.loads(line)
        try:
            answer = getattr(worker, task.pop("do"))(**task)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
