"""INT8 in ONNX: the encoder's weights and activations (QDQ, W8A8), the decoder's weights.

NNCF does the work, with its bias correction; per channel where an operator has channels. Softmax,
LayerNorm and the products of two activations in attention stay in float. Weights are unsigned unless
`signed` ones are asked for: on x86 without VNNI, sums of two products of an unsigned and a signed byte
are kept in 16 bits and saturate (ONNX Runtime's documentation, "Quantize ONNX models").
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import save_tensors_data

from sam_edge.backends.openvino import no_telemetry
from sam_edge.quiet import quiet

from .ranges import measure

with no_telemetry():
    import nncf
    from nncf.quantization.advanced_parameters import QuantizationParameters

QUANTISED = ("Conv", "Gemm", "MatMul")
# An activation that only cuts values off goes into the range of the product before it.
FOLDED = ("Clip", "Relu")

Images = Sequence[NDArray[np.float32]]


def quantisable(source: Path) -> list[str]:
    """The nodes of an encoder that INT8 applies to, in order: convolutions and linear layers.

    A product with a batch of constant matrices is none: so are relative positions added to attention.
    """
    graph = onnx.load(source, load_external_data=False).graph
    axes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in QUANTISED
        and (axes.get(node.input[1]) == 2 or (node.op_type == "Conv" and node.input[1] in axes))
    ]


def quantize_encoder(
    source: Path,
    target: Path,
    calibration: Images,
    keep_float: Collection[str] = (),
    signed: bool = False,
) -> None:
    """Write `source` (FP32 encoder) to `target` with its products in INT8, by NNCF.

    Args:
        source: FP32 encoder.onnx.
        target: where to write.
        calibration: (1, 3, S, S) float32 encoder inputs.
        keep_float: names of nodes to leave in float.
        signed: signed weights, for CPUs with VNNI or the like; else unsigned ones, exact everywhere.
    """
    weighted = set(quantisable(source))
    graph = onnx.load(source, load_external_data=False).graph
    attention = [n.name for n in graph.node if n.op_type == "MatMul" and n.name not in weighted]
    with quiet():
        nncf.set_log_level(logging.ERROR)
        proto = nncf.quantize(
            onnx.load(source),
            nncf.Dataset([{"images": image} for image in calibration]),
            subset_size=len(calibration),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=sorted({*attention, *keep_float})),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.DISABLE,
                # Runtimes have no integer kernels for activations that are quantised per channel.
                activations_quantization_params=QuantizationParameters(per_channel=False),
            ),
        )
    _fold_clips(proto.graph)
    _free_float_convolutions(proto.graph)
    _part_biases(proto.graph)
    if not signed:
        _make_unsigned(proto.graph)
    onnx.save(proto, target)


def _fold_clips(graph: onnx.GraphProto) -> None:
    """Remove each Clip (ReLU6) whose every reader quantises to a range that the Clip does not cut into.

    Quantising saturates at the same values, and a product that is quantised at once runs in integers.
    """
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def saturates(node: onnx.NodeProto, low: float, high: float) -> bool:
        if node.op_type != "QuantizeLinear" or constants[node.input[1]].size != 1:
            return False
        scale, zero = constants[node.input[1]].item(), constants[node.input[2]]
        limits, half = np.iinfo(zero.dtype), scale / 2
        least, most = (scale * (int(limit) - zero.item()) for limit in (limits.min, limits.max))
        return bool(least >= low - half and most <= high + half)

    replaced = {}
    for node in [n for n in graph.node if n.op_type == "Clip" and len(n.input) == 3]:
        low, high = (constants[name].item() for name in node.input[1:])
        after = readers.get(node.output[0], [])
        if after and all(saturates(reader, low, high) for reader in after):
            replaced[node.output[0]] = node.input[0]
            graph.node.remove(node)
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = replaced.get(name, name)


def _free_float_convolutions(graph: onnx.GraphProto) -> None:
    """Convolutions whose result is not quantised at once read what they read before quantisation.

    ONNX Runtime computes them in float: rounding their input costs digits and time and wins nothing, unless
    it lets the convolution that made it run in integers. Their weights stay in INT8.
    """
    made = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        after = readers.get(node.output[0], [])
        restored = made.get(node.input[0])
        if restored is None or restored.op_type != "DequantizeLinear":
            continue
        before = made[restored.input[0]].input[0]
        maker = made.get(before)
        if maker is not None and maker.op_type == "Conv":
            continue
        if not after or any(reader.op_type != "QuantizeLinear" for reader in after):
            node.input[0] = before
    _drop_unread(graph)


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the nodes and initializers that nothing reads any more."""
    needed = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for tensor in [one for one in graph.initializer if one.name not in needed]:
        graph.initializer.remove(tensor)


def _transposes(gemm: onnx.NodeProto) -> bool:
    return any(attribute.name in ("transA", "transB") and attribute.i for attribute in gemm.attribute)


def _part_biases(graph: onnx.GraphProto) -> None:
    """Quantised Gemm(a, b, bias) becomes MatMul(a, b) - (-bias), and so does a sum behind a MatMul.

    ONNX Runtime multiplies a quantised MatMul in integers; but before it looks for one, it makes a Gemm of
    each MatMul with a sum behind it, and a Gemm whose bias is in float it computes in float, its weights
    converted anew in every run. It makes no Gemm of a difference.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}

    def is_quantised(node: onnx.NodeProto | None, kind: str) -> bool:
        if node is None or node.op_type != kind:
            return False
        weight = made.get(node.input[1])
        return weight is not None and weight.op_type == "DequantizeLinear" and weight.input[0] in constants

    negated = {}
    for index, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "Add" and is_quantised(made.get(node.input[0]), "MatMul"):
            if node.input[1] in constants:
                negated[node.input[1]] = f"{node.input[1]}_negated"
                node.op_type, node.input[1] = "Sub", negated[node.input[1]]
        elif is_quantised(node, "Gemm") and len(node.input) == 3 and not _transposes(node):
            product, bias = f"{node.output[0]}_product", f"{node.input[2]}_negated"
            negated[node.input[2]] = bias
            after = onnx.helper.make_node("Sub", [product, bias], list(node.output), name=f"{node.name}_bias")
            node.op_type, node.output[0] = "MatMul", product
            del node.input[2:], node.attribute[:]
            graph.node.insert(index + 1, after)
    for name, opposite in negated.items():
        value = -onnx.numpy_helper.to_array(constants[name])
        graph.initializer.append(onnx.numpy_helper.from_array(value, opposite))
    _drop_unread(graph)


def _make_unsigned(graph: onnx.GraphProto) -> None:
    """Signed weights and their zero points moved up by 128: the same numbers, as unsigned bytes."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    names = set()
    for node in graph.node:
        weight = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight is not None and weight.data_type == onnx.TensorProto.INT8:
            names |= {node.input[0], node.input[2]}
    for name in names:
        values = onnx.numpy_helper.to_array(constants[name]).astype(np.int16) + 128
        constants[name].CopyFrom(onnx.numpy_helper.from_array(values.astype(np.uint8), name))


def compress_decoder(source: Path, target: Path) -> None:
    """Write `source` (FP32 decoder) to `target` with the weights of its linear layers in INT8.

    Its activations stay in float: they are few, and masks are drawn from them. Convolutions stay too:
    they hold few weights, and ONNX Runtime refuses the scales that NNCF gives them.
    """
    model = onnx.load(source)
    by_head = _weights_by_head(model.graph)
    with quiet():
        nncf.set_log_level(logging.ERROR)
        proto = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT8_SYM,
            # A decoder without mask prompts has no Conv.
            ignored_scope=nncf.IgnoredScope(
                types=["Conv", "ConvTranspose"], names=sorted(by_head), validate=False
            ),
        )
    _store_in_int8(proto.graph, set(by_head.values()))
    onnx.save(proto, target)


def _weights_by_head(graph: onnx.GraphProto) -> dict[str, str]:
    """Of products with a matrix for each head: the node's name and its weights'."""
    axes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "MatMul"]
    return {node.name: node.input[1] for node in nodes if axes.get(node.input[1], 0) > 2}


def _store_in_int8(graph: onnx.GraphProto, names: set[str]) -> None:
    """Weights of more than two axes as INT8 with a scale for each row: NNCF's would have one for each head,
    on axes that ONNX has no scales for."""
    for tensor in [one for one in graph.initializer if one.name in names]:
        weight = onnx.numpy_helper.to_array(tensor)
        rows = weight.reshape(-1, weight.shape[-1])
        scale = np.maximum(np.abs(rows).max(1) / 127, np.finfo(np.float32).tiny).astype(np.float32)
        whole = np.rint(rows / scale[:, None]).astype(np.int8)
        graph.initializer.remove(tensor)
        stored, scales, matrix, shape = (
            f"{tensor.name}_{part}" for part in ("int8", "scale", "rows", "shape")
        )
        constants = {stored: whole, scales: scale, shape: np.array(weight.shape, np.int64)}
        graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in constants.items())
        restore = [
            onnx.helper.make_node("DequantizeLinear", [stored, scales], [matrix], name=matrix, axis=0),
            onnx.helper.make_node("Reshape", [matrix, shape], [tensor.name], name=f"{tensor.name}_reshaped"),
        ]
        for index, node in enumerate(restore):
            graph.node.insert(index, node)


def most_sensitive(
    source: Path, work: Path, calibration: Images, progress: Callable[[str], None]
) -> list[str]:
    """`quantisable(source)`, the node that alone in INT8 moves the embedding most first.

    Args:
        source: FP32 encoder.onnx.
        work: a directory for trials.
        calibration: images to compare on.
        progress: told of each node.
    """
    names = quantisable(source)
    exact = _embeddings(source, calibration)
    errors = {}
    ranges = measure(source, (*QUANTISED, *FOLDED), ({"images": image} for image in calibration))
    save_tensors_data(ranges, work / "ranges.json")
    for number, name in enumerate(names):
        progress(f"sensitivity of {name}, {number + 1} of {len(names)}")
        _quantize_one(source, work / "trial.onnx", name, work / "ranges.json")
        errors[name] = float(np.linalg.norm(_embeddings(work / "trial.onnx", calibration) - exact))
    return sorted(names, key=lambda name: -errors[name])


def _quantize_one(source: Path, target: Path, name: str, ranges: Path) -> None:
    """Only the node `name` in INT8, by the ranges in the file `ranges`."""
    folded = [n.name for n in onnx.load(source, load_external_data=False).graph.node if n.op_type in FOLDED]
    with quiet():
        quantize_static(
            source,
            target,
            None,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*QUANTISED, *FOLDED],
            nodes_to_quantize=[name, *folded],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True},
            calibration_cache_path=ranges,
        )


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
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": image})[0] for image in images])
