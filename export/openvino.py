"""Write the two graphs as OpenVINO IR: converted from the FP32 ONNX files, with the model's facts inside.

The ONNX files are the source, and not PyTorch once more, because operators then keep one name through
both formats: what has to stay in float is one list. A MatMul or Conv that has a bias is called
`NAME/WithoutBiases` here; `keep_float` takes the ONNX name.

FP16 and INT8 are about storage and, for INT8, about arithmetic: constants of at most
`SMALL_CONSTANT` numbers (biases, norms, scales, the prompt encoder's Fourier matrix) stay in FP32. That
costs nothing, as each compressed constant needs more description in the .xml than it saves.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sam_edge.backends.openvino import no_telemetry, read_model
from sam_edge.errors import ExportError
from sam_edge.quiet import quiet

with no_telemetry():
    import openvino as ov
    from openvino import opset13 as ops

SMALL_CONSTANT = 256
SMALL_WEIGHT = 4096
BARE = "/WithoutBiases"
PRODUCTS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
# What a static decoder is written for: one click and its padding point, or one box.
STATIC_PROMPTS, STATIC_POINTS = 1, 2
# What the dynamic axes of other inputs and outputs than points count.
_AXES = {
    "text_embeddings": ("num_prompts", "num_texts"),
}


def write(
    source: Path, path: Path, facts: Mapping[str, Any], precision: str = "fp32", static: bool = True
) -> list[str]:
    """Convert an FP32 ONNX file to `path` (.xml) and the .bin beside it, weights in FP32 or FP16.

    A static decoder is written for one prompt of two points (a click and its padding point, or a box),
    which is what NPU compilers want; it still holds everything needed to be reshaped, and
    `sam_edge.backends.openvino` does so when more prompts or points come. A decoder that is not static
    has "num_prompts" and "num_points" as dynamic axes. The encoder is static either way.

    Returns:
        what stayed in higher precision than `precision`, for the manifest.

    Raises:
        ExportError: OpenVINO cannot convert the graph.
    """
    model = _convert(source, static)
    kept = []
    if precision == "fp16":
        model = _compress_to_fp16(model, path.parent)
        kept.append(f"constants of up to {SMALL_CONSTANT} numbers (biases, norms, Fourier matrix): fp32")
    _save(model, path, facts)
    return kept


def write_encoder_int8(
    source: Path,
    path: Path,
    facts: Mapping[str, Any],
    calibration: Sequence[NDArray[np.float32]],
    keep_float: Collection[str] = (),
    full_range: bool = False,
) -> list[str]:
    """Quantise weights and activations of the encoder's convolutions and matrix products to INT8.

    Attention (scores, softmax, values), LayerNorm and GELU stay in float.

    Args:
        source: the encoder's FP32 ONNX file.
        path: the .xml to write; the .bin goes beside it.
        facts: go into the file.
        calibration: preprocessed images, each (1, 3, S, S); activation ranges are taken from them.
        keep_float: names of ONNX nodes to compute in float too; only their larger weights are stored in
            INT8, so that the file hardly grows.
        full_range: use all 8 bits of a weight. Without VNNI, x86 adds pairs of products in 16 bits, which
            then overflow, so that the default is half of the range.

    Returns:
        what stayed in float, for the manifest.

    Raises:
        ExportError: no calibration images, a name that is not in the graph, or a failed conversion.
    """
    if not calibration:
        raise ExportError("INT8 needs calibration images and none were given; give at least one")
    model = _convert(source, static=True)
    ignored = {*_named(model, source, keep_float), *_attention_products(model)}
    nncf = _import_nncf()
    ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    fix = nncf.OverflowFix.DISABLE if full_range else nncf.OverflowFix.ENABLE
    with quiet():
        try:
            model = nncf.quantize(
                model,
                nncf.Dataset(calibration),
                subset_size=len(calibration),
                model_type=nncf.ModelType.TRANSFORMER,
                ignored_scope=nncf.IgnoredScope(names=sorted(ignored)) if ignored else None,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=fix, activations_range_estimator_params=ranges
                ),
            )
        except Exception as error:
            raise ExportError(f"quantising {source.name} failed: {_line(error)}") from error
    if ignored:
        model = _store_in_int8(model, source)
    _store_tables_in_int8(model)
    _save(_compress_to_fp16(model, path.parent), path, facts)
    return ["attention scores, softmax and values", "LayerNorm", "GELU", *sorted(set(keep_float))]


def write_decoder_int8(source: Path, path: Path, facts: Mapping[str, Any], static: bool = True) -> list[str]:
    """Store the decoder's weights in INT8; activations stay in float. `static` is as in `write`.

    Returns:
        what stayed in float, for the manifest.

    Raises:
        ExportError: a failed conversion.
    """
    model = _store_in_int8(_convert(source, static), source, by_head=True)
    _save(_compress_to_fp16(model, path.parent), path, facts)
    return ["activations of the decoder"]


def share_weights(path: Path, other: Path) -> None:
    """Let the graph `path` read its weights from the .bin of `other`, beside it, and delete its own.

    The little that is not there, constants that only one of them needs, is appended.
    """
    own, shared = path.with_suffix(".bin"), other.with_suffix(".bin")
    weights, content = own.read_bytes(), shared.read_bytes()

    def moved(match: re.Match[str]) -> str:
        nonlocal content
        start, size = int(match[1]), int(match[2])
        one = weights[start : start + size]
        content += b"" if one in content else one
        return f'offset="{content.find(one)}" size="{size}"'

    xml = re.sub(r'offset="(\d+)" size="(\d+)"', moved, path.read_text(encoding="utf-8"))
    path.write_text(xml, encoding="utf-8")
    shared.write_bytes(content)
    own.unlink()


def tensors(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs of a written graph: name, dtype and shape, dynamic axes by name."""
    model = read_model(_core(), path)
    return [_tensor(port) for port in model.inputs], [_tensor(port) for port in model.outputs]


def _tensor(port: Any) -> dict[str, Any]:
    name = port.any_name
    axes = _AXES.get(name, ("num_prompts", "num_points"))
    shape = [d.get_length() if d.is_static else axes[i] for i, d in enumerate(port.partial_shape)]
    return {"name": name, "dtype": np.dtype(port.element_type.to_dtype()).name, "shape": shape}


def _core() -> Any:
    core = ov.Core()
    # A mapped .bin could be neither replaced nor, on some systems, deleted.
    core.set_property({"ENABLE_MMAP": False})
    return core


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _import_nncf() -> ModuleType:
    try:
        with no_telemetry(), quiet():
            import nncf
            import nncf.quantization.range_estimator
    except ImportError as error:
        raise ExportError("NNCF is not installed; pip install 'sam-edge[export]'") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _convert(source: Path, static: bool) -> Any:
    with quiet():
        try:
            model = ov.convert_model(str(source))
            if static:
                model.reshape({port.any_name: _static(port.partial_shape) for port in model.inputs})
        except Exception as error:
            raise ExportError(f"OpenVINO cannot convert {source}: {_line(error)}") from error
    return model


def _static(shape: Any) -> list[int]:
    sizes = (STATIC_PROMPTS, STATIC_POINTS)
    return [d.get_length() if d.is_static else sizes[i] for i, d in enumerate(shape)]


def _named(model: Any, source: Path, names: Collection[str]) -> list[str]:
    """The model's own names of the ONNX nodes `names`."""
    graph = onnx.load(source, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    # Those without weights may have been fused into operators that stay in float anyhow.
    found = {node.name: weights.isdisjoint(node.input) for node in graph.node}
    unknown = sorted(set(names) - found.keys())
    if unknown:
        raise ExportError(
            f"{source.name} has no operator {', '.join(unknown)} to keep in float; its operators are called "
            f"like {', '.join(list(found)[:3])}"
        )
    known = [op.get_friendly_name() for op in model.get_ops()]
    own = [name for name in known if name.removesuffix(BARE) in names]
    lost = sorted(n for n in set(names) - {name.removesuffix(BARE) for name in own} if not found[n])
    if lost:
        raise ExportError(f"OpenVINO fused {', '.join(lost)} of {source.name} away; it cannot stay in float")
    return own


def _attention_products(model: Any, axes: int = 2) -> list[str]:
    """Fused attention, and MatMuls that are no linear layers, whose weights have up to `axes` axes: queries
    with keys, relative positions."""

    def is_linear(op: Any) -> bool:
        return any(
            value.get_node().get_type_name() == "Constant" and len(value.get_partial_shape()) <= axes
            for value in op.input_values()
        )

    return [
        op.get_friendly_name()
        for op in model.get_ops()
        if op.get_type_name() == "ScaledDotProductAttention"
        or (op.get_type_name() == "MatMul" and not is_linear(op))
    ]


def _store_in_int8(model: Any, source: Path, by_head: bool = False) -> Any:
    """Weights that are still in float to INT8 with a scale for each output channel, but for small ones.

    Computation stays in float. Small weights, of depthwise convolutions say, are the ones that lose most.
    `by_head` includes weights with a matrix for each head.
    """
    weights = {
        op.get_friendly_name(): value.get_node().data.size
        for op in model.get_ops()
        if op.get_type_name() in PRODUCTS
        for value in op.input_values()
        if value.get_node().get_type_name() == "Constant"
    }
    left = {name for name, size in weights.items() if size < SMALL_WEIGHT}
    left |= {*_attention_products(model, axes=4 if by_head else 2)}
    if left >= weights.keys():
        return model
    nncf = _import_nncf()
    with quiet():
        try:
            return nncf.compress_weights(
                model,
                mode=nncf.CompressWeightsMode.INT8_SYM,
                ignored_scope=nncf.IgnoredScope(names=sorted(left)) if left else None,
            )
        except Exception as error:
            raise ExportError(f"compressing the weights of {source.name} failed: {_line(error)}") from error


def _store_tables_in_int8(model: Any) -> None:
    """Tables of positions, which are added to the tokens, as INT8 with a scale for each token.

    NNCF compresses the weights of products only.
    """
    for op in model.get_ops():
        if op.get_type_name() != "Constant" or op.data.size <= SMALL_WEIGHT:
            continue
        readers = list(op.output(0).get_target_inputs())
        if all(reader.get_node().get_type_name() == "Add" for reader in readers):
            table = np.array(op.data, np.float32)
            scale = np.maximum(np.abs(table).max(-1, keepdims=True) / 127, np.finfo(np.float32).tiny)
            whole = ops.constant(np.rint(table / scale).astype(np.int8))
            stored = ops.multiply(ops.convert(whole, "f32"), ops.constant(scale))
            for reader in readers:
                reader.replace_source_output(stored.output(0))


def _compress_to_fp16(model: Any, directory: Path) -> Any:
    """Constants to FP16, but for the small ones.

    `save_model` has no such choice, so its work is read back and undone where it does not pay.
    """
    small = {
        op.get_friendly_name(): np.array(op.data)
        for op in model.get_ops()
        if op.get_type_name() == "Constant"
        and op.get_element_type() == ov.Type.f32
        and op.data.size <= SMALL_CONSTANT
    }
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        path = Path(scratch) / "model.xml"
        ov.save_model(model, path, compress_to_fp16=True)
        model = _core().read_model(path)
    for op in model.get_ops():
        value = small.get(op.get_friendly_name())
        if op.get_type_name() == "Convert" and value is not None:
            op.output(0).replace(ops.constant(value).output(0))
    return model


def _share_constants(model: Any) -> None:
    """Let equal small constants be one: INT8 graphs hold hundreds of them."""
    first: dict[tuple[str, tuple[int, ...], bytes], Any] = {}
    for op in model.get_ordered_ops():
        if op.get_type_name() == "Constant" and op.data.size <= SMALL_CONSTANT:
            key = op.get_element_type().get_type_name(), tuple(op.get_output_shape(0)), op.data.tobytes()
            one = first.setdefault(key, op)
            if one is not op:
                op.output(0).replace(one.output(0))


def _forget_inner_names(model: Any) -> None:
    """Tensor names are for inputs and outputs."""
    for op in model.get_ops():
        feeds_result = (
            t.get_node().get_type_name() == "Result" for o in op.outputs() for t in o.get_target_inputs()
        )
        if op.get_type_name() not in ("Parameter", "Result") and not any(feeds_result):
            for output in op.outputs():
                output.get_tensor().set_names(set())


def _compact(xml: str) -> str:
    """The same graph in less than half of the text.

    Without indentation, without names of operators but those of inputs and outputs, and without what OpenVINO
    infers anew when it reads a graph: shapes of inputs and outputs and types of inputs.
    """
    xml = re.sub(r">\s+<", "><", xml).replace('" />', '"/>')
    xml = re.sub(r"(<port [^>]*[^/>])>(?:<dim>-?\d+</dim>)+</port>", r"\1/>", xml)

    def without_types(match: re.Match[str]) -> str:
        return re.sub(r' precision="\w+"', "", match[0])

    xml = re.sub(
        r'<layer id="(\d+)" name="[^"]*" type="(?!Parameter|Result)', r'<layer id="\1" name="\1" type="', xml
    )
    return re.sub(r"<input>.*?</input>", without_types, xml)


def _save(model: Any, path: Path, facts: Mapping[str, Any]) -> None:
    _share_constants(model)
    _forget_inner_names(model)
    # A model of the same operators, without the converters' notes on their options and files.
    model = ov.Model(model.get_results(), model.get_parameters(), path.stem)
    model.set_rt_info(json.dumps(facts, sort_keys=True), "sam_edge")
    ov.save_model(model, path, compress_to_fp16=False)
    path.write_text(_compact(path.read_text(encoding="utf-8")), encoding="utf-8")
