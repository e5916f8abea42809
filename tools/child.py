"""What runs in fresh processes for `tools.goals` and `tools.drop_in`: first masks and peak memory.

It runs sam-edge, the published code (segment_anything in PyTorch) and the published graphs (plain ONNX in
ONNX Runtime). What only one of them needs is imported there, so that the memory of the others is without it.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sam_edge
from sam_edge.benchmarks.measure.worker import Task, milliseconds, peak_rss_mb, serve
from sam_edge.errors import SamEdgeError
from sam_edge.imaging.postprocess import Upscaling
from sam_edge.imaging.preprocess import InputRules, preprocess, resized_size

CLICK = (900.0, 400.0)


def load_and_click(task: Task, image: NDArray[np.uint8]) -> None:
    """sam-edge: load a bundle, encode the image and click on it."""
    sam = sam_edge.load(
        task["bundle"],
        task["backend"],
        "cpu",
        task["precision"],
        task["threads"],
        cache_dir=task.get("cache_dir"),
    )
    sam.predict(sam.encode(image), [CLICK], [1])


def open_graphs_and_click(task: Task, image: NDArray[np.uint8]) -> None:
    """The published graphs in "folder", with sam-edge's pre- and postprocessing: the same."""
    import onnxruntime

    folder, size = Path(task["folder"]), (task["size"][0], task["size"][1])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task["threads"]
    encoder, decoder = (
        onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
        for name in ("encoder.onnx", "decoder.onnx")
    )
    # The same preprocessing, with SAM's constants, which do not change the time.
    rules = InputRules(size, "longest_side", True, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 0.0)
    embedding = encoder.run(None, {"images": preprocess(image, rules, task["threads"])[0]})[0]
    scale = max(size) / max(image.shape)
    inputs = {
        "image_embeddings": embedding,
        "point_coords": np.array([[np.multiply(CLICK, scale), (0, 0)]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, *(4 * side for side in embedding.shape[2:])), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    low_res, _ = decoder.run(None, inputs)
    inside, low_res_size = resized_size(image.shape[:2], rules), low_res.shape[2:]
    Upscaling(low_res_size, size, inside, image.shape[:2]).masks(low_res[:, 1:], 0.0)


def load_published_and_click(task: Task, image: NDArray[np.uint8]) -> None:
    """The published code in PyTorch: the same."""
    import torch

    from tools.published import published, published_around

    torch.set_num_threads(task["threads"])
    checkpoint = task["checkpoint"]
    predictor = published().SamPredictor(published_around(Path(checkpoint) if checkpoint else None))
    predictor.set_image(image)
    predictor.predict(np.array([CLICK]), np.array([1]))


SUBJECTS = {
    "sam_edge": load_and_click,
    "graphs": open_graphs_and_click,
    "pytorch": load_published_and_click,
}


def first_mask(task: Task) -> float:
    """Milliseconds from nothing to the first mask of "subject"; the image and the imports come before."""
    image = np.load(task["image"])
    importlib.import_module(task.get("backend", "onnxruntime"))
    return milliseconds(lambda: SUBJECTS[task["subject"]](task, image))


def peak_memory(task: Task) -> float:
    """Peak memory in MB of this process, once "subject" has made its first mask."""
    SUBJECTS[task["subject"]](task, np.load(task["image"]))
    peak = peak_rss_mb()
    if peak is None:
        raise SamEdgeError("this system does not say how much memory a process held")
    return peak


def main() -> None:
    """Answer tasks until stdin ends."""
    serve({"first_mask": first_mask, "peak_memory": peak_memory}, expected=SamEdgeError)
