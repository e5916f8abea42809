"""INT8 in ONNX: the encoder's weights and activations (QDQ, W8A8), the decoder's weights.

Weights have one scale per output channel, activations one per tensor, from their range on the calibration
images. Softmax, LayerNorm and the matmuls of two activations in attention stay in float. Weights that are
multiplied as integers have 7 bits (reduce_range) unless all 8 are asked for: on x86 without VNNI, sums of two
products of an unsigned and a signed byte are accumulated in 16 bits and saturate (ONNX Runtime's
documentation, "Quantize ONNX models"). Unsigned 8-bit weights would not, but are slower in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from sam_edge.errors import ExportError

from ..graphs.onnx_edit import int_attribute, save
from . import qdq
from .arithmetic import ActivationStats
from .ranges import activation_stats

Images = Sequence[NDArray[np.float32]]


def quantizable_names(source: Path) -> list[str]:
    """Names of the encoder's convolutions and linear layers, which INT8 applies to, in graph order."""
    return [node.name for node in qdq.quantizable_nodes(onnx.load(source, load_external_data=False).graph)]


def encoder_stats(source: Path, calibration: Images) -> dict[str, ActivationStats]:
    """Measure the inputs of the encoder's convolutions and linear layers.

    Args:
        source: FP32 encoder.onnx.
        calibration: (1, 3, S, S) float32 encoder inputs; at least one.

    Returns:
        Statistics by tensor name.

    Raises:
        ExportError: `calibration` is empty.
    """
    if not calibration:
        raise ExportError("INT8 needs calibration images and none were given; give at least one")
    graph = onnx.load(source, load_external_data=False).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    channels = {}
    for node in qdq.quantizable_nodes(graph):
        is_conv, weight = node.op_type == "Conv", shapes[node.input[1]]
        groups = int_attribute(node, "group") or 1
        count = weight[1] * groups if is_conv else weight[1 - qdq.output_axis(node)]
        channels[node.input[0]] = count, not is_conv
    return activation_stats(source, channels, ({"images": image} for image in calibration))


def quantize_encoder(
    source: Path,
    target: Path,
    stats: Mapping[str, ActivationStats],
    keep_float: Collection[str] = (),
    full_range: bool = False,
    round_conv_inputs: bool = False,
) -> None:
    """Write the FP32 encoder `source` to `target` with its convolutions and linear layers in INT8.

        >>> quantize_encoder(fp32, int8, encoder_stats(fp32, images))

    Args:
        source: FP32 encoder.onnx.
        target: where to write.
        stats: `encoder_stats` of the encoder.
        keep_float: names of nodes to exclude.
        full_range: use all 8 bits of a weight, for CPUs with VNNI or the like.
        round_conv_inputs: also quantize the inputs of convolutions.
    """
    model = onnx.load(source, load_external_data=False)
    names = {node.name for node in qdq.quantizable_nodes(model.graph)} - set(keep_float)
    qdq.quantize(model.graph, source.parent, names, stats, full_range, round_conv_inputs)
    # Beside `source`, its external data can stay where it is.
    if target.parent == source.parent:
        onnx.save(model, target)
    else:
        onnx.load_external_data_for_model(model, str(source.parent))
        save(model, target)


def compress_decoder(source: Path, target: Path) -> None:
    """Write the FP32 decoder `source` to `target` with the weights of its linear layers in INT8.

    Activations stay in float: they are few, and masks are computed from them. Convolutions stay in float,
    too: they hold few weights.
    """
    model = onnx.load(source)
    axes = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    linear = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    qdq.store_weights(model.graph, {node.input[1] for node in linear if axes.get(node.input[1], 0) > 1})
    save(model, target)
