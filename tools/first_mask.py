"""From nothing to the first mask, in a process of its own: a task in JSON from stdin, milliseconds to stdout.

With a "bundle", its "backend" and "precision": sam-edge, with a cache. Without: ONNX Runtime with the two
published graphs in "folder", and sam-edge's pre- and postprocessing. Imports come before, and so does reading
the image.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sam_edge
from sam_edge.imaging.postprocess import Upscaling
from sam_edge.imaging.preprocess import InputRules, preprocess, resized_size

CLICK = (900.0, 400.0)


def main() -> None:
    """Do the task."""
    task = json.load(sys.stdin)
    image = np.load(Path(task["folder"]) / "image.npy")
    backend = task.get("backend", "onnxruntime")
    importlib.import_module(backend)
    start = time.perf_counter()
    if "bundle" in task:
        _ours(task, image)
    else:
        _published(task, image)
    print(1e3 * (time.perf_counter() - start))


def _ours(task: dict[str, Any], image: NDArray[np.uint8]) -> None:
    cache = Path(task["folder"]) / "cache"
    sam = sam_edge.load(
        task["bundle"], task["backend"], "cpu", task["precision"], task["threads"], cache_dir=cache
    )
    sam.predict(sam.encode(image), [CLICK], [1])


def _published(task: dict[str, Any], image: NDArray[np.uint8]) -> None:
    import onnxruntime

    folder, size = Path(task["folder"]), tuple(task["size"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task["threads"]
    encoder, decoder = (
        onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
        for name in ("encoder.onnx", "decoder.onnx")
    )
    # The same preprocessing, with SAM's constants, which change no time.
    rules = InputRules(size, "longest_side", True, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 0.0)
    embedding = encoder.run(None, {"images": preprocess(image, rules, task["threads"])[0]})[0]
    scale = max(size) / max(image.shape)
    given = {
        "image_embeddings": embedding,
        "point_coords": np.array([[np.multiply(CLICK, scale), (0, 0)]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, *(4 * side for side in embedding.shape[2:])), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    low_res, _ = decoder.run(None, given)
    inside, low_res_size = resized_size(image.shape[:2], rules), low_res.shape[2:]
    Upscaling(low_res_size, size, inside, image.shape[:2]).masks(low_res[:, 1:], 0.0)


if __name__ == "__main__":
    main()
