"""FP16 and A16W8 for Qualcomm's Hexagon NPU.

The NPU has no FP32. "int8" is A16W8, as in Qualcomm's recipes for transformers: 8-bit weights with one scale
per channel and 16-bit activations. All operators are quantized, including softmax and norms, except those
that depend on a prompt's points only, whose coordinates need precision, and those that the search excludes.
These run in FP16. "fp16" runs everything in FP16.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config, qnn_preprocess_model
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from sam_edge.system.output import suppress_output

from .ranges import CalibrationReader, Inputs

_NORM = "LayerNormalization"
_PROMPT = {"point_coords", "point_labels"}


def to_fp16(source: Path, target: Path) -> None:
    """Write the FP32 graph `source` to `target` in FP16 throughout, with FP32 inputs and outputs."""
    with suppress_output():
        proto = convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=[])
    # The converter appends its casts at the end; ONNX requires topological order.
    OnnxModel(proto).topological_sort()
    onnx.save(proto, target)


def to_int8(
    source: Path, target: Path, inputs: Iterable[Inputs], keep_float: Collection[str] = ()
) -> list[str]:
    """Write the FP32 graph `source` to `target` in A16W8, with QDQ nodes.

    Args:
        source: an FP32 graph of `sam_edge.export.targets.hexagon`.
        target: where to write.
        inputs: calibration inputs.
        keep_float: names of nodes to exclude.

    Returns:
        Names of the nodes that depend on the prompt's points only, which stay in float.
    """
    with suppress_output():
        ready = target.with_suffix(".fused.onnx")
        # Fuses GELU into one operator, whose intermediate values then need no ranges.
        if not qnn_preprocess_model(source, ready):
            ready = source
        graph = onnx.load(ready, load_external_data=False).graph
        points = _point_nodes(graph)
        # The NPU's LayerNorm requires unsigned scales.
        norms = {n.input[1]: [{"quant_type": QuantType.QUInt8}] for n in graph.node if n.op_type == _NORM}
        config = get_qnn_qdq_config(
            ready,
            CalibrationReader(inputs),
            activation_type=QuantType.QUInt16,
            weight_type=QuantType.QInt8,
            per_channel=True,
            init_overrides=norms,
        )
        config.nodes_to_exclude = [*points, *keep_float]
        quantize(ready, target, config)
        target.with_suffix(".fused.onnx").unlink(missing_ok=True)
    return points


def _point_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that depend on the prompt's points and on no other input."""
    reads = {value.name: {value.name} for value in graph.input}
    found = []
    for node in graph.node:
        inputs: set[str] = set().union(*(reads.get(name, set()) for name in node.input))
        reads |= dict.fromkeys(node.output, inputs)
        if inputs and inputs <= _PROMPT:
            found.append(node.name)
    return found
