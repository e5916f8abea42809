"""Rank an encoder's operators by how much INT8 costs each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from sam_edge.backends import get_backend

from .arithmetic import ActivationStats
from .onnx_int8 import Images, quantizable_names, quantize_encoder


def rank_by_sensitivity(
    source: Path,
    work: Path,
    calibration: Images,
    stats: Mapping[str, ActivationStats],
    progress: Callable[[str], None],
) -> list[str]:
    """Sort `quantizable_names(source)` by the error of the embedding when only that node is in INT8.

    The ranking serves every format and CPU: inputs of convolutions are rounded, too, and weights have 7 bits.

    Args:
        source: FP32 encoder.onnx.
        work: a directory for temporary graphs.
        calibration: (1, 3, S, S) float32 images to compare embeddings on.
        stats: `encoder_stats` of the encoder.
        progress: called with each step.

    Returns:
        Node names, the most sensitive first.
    """
    names = quantizable_names(source)
    exact = _embeddings(source, calibration)
    errors = {}
    for number, name in enumerate(names):
        progress(f"sensitivity of {name}, {number + 1} of {len(names)}")
        others = set(names) - {name}
        quantize_encoder(source, work / "trial.onnx", stats, others, round_conv_inputs=True)
        errors[name] = float(np.linalg.norm(_embeddings(work / "trial.onnx", calibration) - exact))
    return sorted(names, key=lambda name: -errors[name])


def limit_to_weight_share(source: Path, names: Sequence[str], share: float) -> list[str]:
    """Take nodes in order, skipping those whose weights would exceed a share of the graph's in total.

    Args:
        source: an ONNX file.
        names: of nodes of it.
        share: of the number of all weights, from 0 to 1.
    """
    graph = onnx.load(source, load_external_data=False).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    weights = {node.name: sizes.get(node.input[1], 0) for node in graph.node if len(node.input) > 1}
    left = share * sum(sizes.values())
    taken = []
    for name in names:
        if weights[name] <= left:
            left -= weights[name]
            taken.append(name)
    return taken


def _embeddings(path: Path, images: Images) -> NDArray[np.float32]:
    session = get_backend("onnxruntime").open(path, "cpu", None)
    found = np.concatenate([session.run({"images": image})["image_embeddings"] for image in images])
    session.close()
    return found
