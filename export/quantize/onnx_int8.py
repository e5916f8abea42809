"""INT8 in ONNX: the encoder's weights and activations (QDQ, W8A8), the decoder's weights.

Weights have a scale for each output channel, activations one, from the values that they take on calibration
pictures. Softmax, LayerNorm and the products of two activations in attention stay in float. Weights that
are multiplied in integers have 7 bits unless all 8 are asked for: on x86 without VNNI, sums of two products
of an unsigned and a signed byte are kept in 16 bits and saturate (ONNX Runtime's documentation, "Quantize
ONNX models"). Unsigned weights of 8 bits do not, but ONNX Runtime multiplies them slower.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from sam_edge.backends import get_backend
from sam_edge.errors import ExportError

from ..graphs.onnx import save
from . import qdq
from .qdq import Observed
from .ranges import observe

Images = Sequence[NDArray[np.float32]]


def quantisable(source: Path) -> list[str]:
    """The nodes of an encoder that INT8 applies to, in order: convolutions and linear layers."""
    return [node.name for node in qdq.quantisable(onnx.load(source, load_external_data=False).graph)]


def observe_products(source: Path, calibration: Images) -> dict[str, Observed]:
    """What the products of an encoder read.

    Args:
        source: FP32 encoder.onnx.
        calibration: (1, 3, S, S) float32 encoder inputs; at least one.

    Raises:
        ExportError: there is none.
    """
    if not calibration:
        raise ExportError("INT8 needs calibration images and none were given; give at least one")
    graph = onnx.load(source, load_external_data=False).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    channels = {}
    for node in qdq.quantisable(graph):
        convolves, weight = node.op_type == "Conv", shapes[node.input[1]]
        groups = qdq.attribute(node, "group") or 1
        count = weight[1] * groups if convolves else weight[1 - qdq.output_axis(node)]
        channels[node.input[0]] = count, not convolves
    return observe(source, channels, ({"images": image} for image in calibration))


def quantize_encoder(
    source: Path,
    target: Path,
    observed: Mapping[str, Observed],
    keep_float: Collection[str] = (),
    full_range: bool = False,
    convolutions: bool = False,
) -> None:
    """Write `source` (FP32 encoder) to `target` with its products in INT8.

    Args:
        source: FP32 encoder.onnx.
        target: where to write.
        observed: `observe_products` of it.
        keep_float: names of nodes to leave in float.
        full_range: use all 8 bits of a weight, for CPUs with VNNI or the like.
        convolutions: whether convolutions read what was rounded, too.
    """
    model = onnx.load(source, load_external_data=False)
    names = {node.name for node in qdq.quantisable(model.graph)} - set(keep_float)
    qdq.quantize(model.graph, source.parent, names, observed, full_range, convolutions)
    # Beside `source`, its external data can stay where it is.
    if target.parent == source.parent:
        onnx.save(model, target)
    else:
        onnx.load_external_data_for_model(model, str(source.parent))
        save(model, target)


def compress_decoder(source: Path, target: Path) -> None:
    """Write `source` (FP32 decoder) to `target` with the weights of its linear layers in INT8.

    Its activations stay in float: they are few, and masks are drawn from them. Convolutions stay too: they
    hold few weights.
    """
    model = onnx.load(source)
    axes = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    qdq.store_weights(model.graph, {node.input[1] for node in products if axes.get(node.input[1], 0) > 1})
    save(model, target)


def most_sensitive(
    source: Path,
    work: Path,
    calibration: Images,
    observed: Mapping[str, Observed],
    progress: Callable[[str], None],
) -> list[str]:
    """`quantisable(source)`, the node that alone in INT8 moves the embedding most first.

    It is for every format and CPU: what convolutions read is rounded, too, and weights have 7 bits.

    Args:
        source: FP32 encoder.onnx.
        work: a directory for trials.
        calibration: images to compare on.
        observed: `observe_products` of it.
        progress: told of each node.
    """
    names = quantisable(source)
    exact = _embeddings(source, calibration)
    errors = {}
    for number, name in enumerate(names):
        progress(f"sensitivity of {name}, {number + 1} of {len(names)}")
        others = set(names) - {name}
        quantize_encoder(source, work / "trial.onnx", observed, others, convolutions=True)
        errors[name] = float(np.linalg.norm(_embeddings(work / "trial.onnx", calibration) - exact))
    return sorted(names, key=lambda name: -errors[name])


def within(source: Path, names: Sequence[str], share: float) -> list[str]:
    """Those of `names`, in order, whose weights together are at most `share` of the graph's."""
    graph = onnx.load(source, load_external_data=False).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    weights = {node.name: sizes.get(node.input[1], 0) for node in graph.node if len(node.input) > 1}
    left = share * sum(sizes.values())
    kept = []
    for name in names:
        if weights[name] <= left:
            left -= weights[name]
            kept.append(name)
    return kept


def _embeddings(path: Path, images: Images) -> NDArray[np.float32]:
    session = get_backend("onnxruntime").open(path, "cpu", None)
    found = np.concatenate([session.run({"images": image})["image_embeddings"] for image in images])
    session.close()
    return found
