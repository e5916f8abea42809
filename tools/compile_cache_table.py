"""Prints a table of what a cache directory saves: loading times without and with one.

    python -m tools.compile_cache_table BUNDLE...

Each row is one variant: median milliseconds of `sam_edge.load`, one click and one box. The runs with and
without the cache are interleaved in one process, after a round that warms up.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sam_edge.backends import find_backends, is_available
from sam_edge.benchmarks.measure.interleave import sample_in_rounds
from sam_edge.bundle.bundle import open_bundle
from sam_edge.runtime.loading import load
from sam_edge.types import ImageEmbedding
from tools.shared.commands import tool_parser

ROUNDS = 9
BACKENDS = ("onnxruntime", "openvino")


def seconds(bundle: Path, backend: str, precision: Any, checked: bool, cache: str | None) -> float:
    """Seconds of loading, and of the first prompts: OpenVINO compiles for each of their shapes."""
    start = time.perf_counter()
    sam = load(bundle, backend, precision=precision, threads=1, check_integrity=checked, cache_dir=cache)
    spent = time.perf_counter() - start
    # The encoder is left out: it takes as long either way.
    shapes = {t.name: tuple(map(int, t.shape)) for t in sam.variant.encoder.outputs}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    main = arrays.pop("image_embeddings")
    size = sam.manifest.input.size
    embedding = ImageEmbedding(main, size, size, sam.manifest.model_id, arrays)
    start = time.perf_counter()
    sam.predict(embedding, [[9, 9]])
    sam.predict(embedding, boxes=[[1, 1, 20, 20]])
    spent += time.perf_counter() - start
    sam.close()
    return spent


def row(bundle: Path, backend: str, precision: str, rounds: int = ROUNDS) -> list[str]:
    """The cells of one row."""
    cells = []
    for checked in (True, False):
        with tempfile.TemporaryDirectory() as cache:
            work = {
                place: partial(seconds, bundle, backend, precision, checked, place) for place in (None, cache)
            }
            cold, warm = (1e3 * np.median(found) for found in sample_in_rounds(work, rounds).values())
            size = sum(p.stat().st_size for p in Path(cache).rglob("*") if p.is_file()) / 1e6
        cells += [f"{cold:.0f}", f"{warm:.0f}", f"{cold / warm:.2f}"]
    return [*cells, f"{size:.0f}"]


def main() -> None:
    """Print the table in Markdown."""
    parser = tool_parser("compile_cache_table", __doc__)
    parser.add_argument("bundle", nargs="+")
    bundles: list[str] = parser.parse_args().bundle
    print("| variant | load, ms | with cache | ratio | unchecked, ms | with cache | ratio | cache, MB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in bundles:
        bundle = open_bundle(name)
        for variant in bundle.manifest.variants:
            for backend in find_backends():
                if backend.name in BACKENDS and variant.format in backend.formats and is_available(backend):
                    cells = row(Path(name), backend.name, variant.precision)
                    label = f"{bundle.manifest.model.name} {variant.id}"
                    print(f"| {' | '.join([label, *cells])} |", flush=True)


if __name__ == "__main__":
    main()
