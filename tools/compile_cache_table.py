"""What a cache directory saves: a table of loading times without and with one.

    python -m tools.compile_cache_table BUNDLE...

Each row is one variant: the median of `sam_edge.load`, one click and one box, in milliseconds; the runs with
and without the cache take turns in one process, after one of each that does not count.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sam_edge.backends import find_backends, is_available
from sam_edge.bundle.bundle import open_bundle
from sam_edge.runtime.loading import load

TURNS = 9
BACKENDS = ("onnxruntime", "openvino")


def seconds(bundle: Path, backend: str, precision: str, checked: bool, cache: str | None) -> float:
    """Of loading; with what OpenVINO compiles for a second shape of prompts."""
    start = time.perf_counter()
    sam = load(bundle, backend, precision=precision, threads=1, check_integrity=checked, cache_dir=cache)
    spent = time.perf_counter() - start
    # Not the encoder: it takes as long, whatever was kept.
    shapes = {t.name: t.shape for t in sam.variant.encoder.outputs}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    main = arrays.pop("image_embeddings")
    from sam_edge.types import ImageEmbedding

    size = sam.manifest.input.size
    embedding = ImageEmbedding(main, size, size, sam.manifest.model_id, arrays)
    start = time.perf_counter()
    sam.predict(embedding, [[9, 9]])
    sam.predict(embedding, boxes=[[1, 1, 20, 20]])
    spent += time.perf_counter() - start
    sam.close()
    return spent


def row(bundle: Path, backend: str, precision: str, turns: int = TURNS) -> list[str]:
    """The cells of one row."""
    cells = []
    for checked in (True, False):
        with tempfile.TemporaryDirectory() as cache:
            times: dict[str | None, list[float]] = {None: [], cache: []}
            for turn in range(turns + 1):
                for place, found in times.items():
                    spent = seconds(bundle, backend, precision, checked, place)
                    if turn:
                        found.append(spent)
            cold, warm = (1000 * statistics.median(found) for found in times.values())
            size = sum(p.stat().st_size for p in Path(cache).rglob("*") if p.is_file()) / 1e6
        cells += [f"{cold:.0f}", f"{warm:.0f}", f"{cold / warm:.2f}"]
    return [*cells, f"{size:.0f}"]


def main() -> None:
    """Print a table in Markdown."""
    print("| variant | load, ms | with cache | ratio | unchecked, ms | with cache | ratio | cache, MB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in sys.argv[1:]:
        bundle = open_bundle(name)
        for variant in bundle.manifest.variants:
            for backend in find_backends():
                reads = backend.name in BACKENDS and variant.format in backend.formats
                if reads and is_available(backend):
                    cells = row(Path(name), backend.name, variant.precision)
                    label = f"{bundle.manifest.model.name} {variant.id}"
                    print(f"| {' | '.join([label, *cells])} |", flush=True)


if __name__ == "__main__":
    main()
