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
import re
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sam_edge.backends.openvino import no_telemetry, read_model
from sam_edge.errors import ExportError
from sam_edge.system.output import suppress_output

from ..quantize import qdq
from ..quantize.arithmetic import QMAX_INT7, QMAX_INT8, ActivationStats
from ..quantize.openvino_int8 import BARE, quantize, store_tables, store_weights

with no_telemetry():
    import openvino as ov
    from openvino import opset13 as ops

SMALL_CONSTANT = 256
# What a static decoder is written for: one click and its padding point, or one box.
STATIC_PROMPTS, STATIC_POINTS = 1, 2
# What the dynamic axes of other inputs and outputs than points count.
_AXES = {
    "text_embeddings": ("num_prompts", "num_texts"),
}


def write(
    source: Path, path: Path, facts: Mapping[str, Any], precision: str = "fp32", static: bool = True
) -> list[str]:
    """Convert an FP32 ONNX file to `path` (.xml) and the .bin beside it, weights in FP32 or, for "fp16" and
    "bf16", in FP16.

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
    if precision != "fp32":
        model = _compress_to_fp16(model, path.parent)
        kept.append(f"constants of up to {SMALL_CONSTANT} numbers (biases, norms, Fourier matrix): fp32")
    _save(model, path, facts)
    return kept


def write_encoder_int8(
    source: Path,
    path: Path,
    facts: Mapping[str, Any],
    observed: Mapping[str, ActivationStats],
    keep_float: Collection[str] = (),
    full_range: bool = False,
) -> list[str]:
    """Quantise weights and activations of the encoder's convolutions and linear layers to INT8.

    Attention (scores, softmax, values), LayerNorm and GELU stay in float.

    Args:
        source: the encoder's FP32 ONNX file.
        path: the .xml to write; the .bin goes beside it.
        facts: go into the file.
        observed: `onnx_int8.encoder_stats` of it.
        keep_float: names of ONNX nodes to compute in float too; only their larger weights are stored in
            INT8, so that the file hardly grows.
        full_range: use all 8 bits of a weight. Without VNNI, x86 adds pairs of products in 16 bits, which
            then overflow, so that the default is half of the range.

    Returns:
        what stayed in float, for the manifest.

    Raises:
        ExportError: a name that is not in the graph, or a failed conversion.
    """
    model = _convert(source, static=True)
    _check_names(model, source, keep_float)
    nodes = qdq.quantizable_nodes(onnx.load(source, load_external_data=False).graph)
    ranges = {node.name: observed[node.input[0]] for node in nodes if node.name not in keep_float}
    quantize(model, ranges, QMAX_INT8 if full_range else QMAX_INT7)
    store_weights(model, axes=2)
    store_tables(model)
    _save(_compress_to_fp16(model, path.parent), path, facts)
    return ["attention scores, softmax and values", "LayerNorm", "GELU", *sorted(set(keep_float))]


def write_decoder_int8(source: Path, path: Path, facts: Mapping[str, Any], static: bool = True) -> list[str]:
    """Store the decoder's weights in INT8; activations stay in float. `static` is as in `write`.

    Returns:
        what stayed in float, for the manifest.

    Raises:
        ExportError: a failed conversion.
    """
    model = _convert(source, static)
    store_weights(model, axes=4)
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


def _convert(source: Path, static: bool) -> Any:
    with suppress_output():
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


def _check_names(model: Any, source: Path, names: Collection[str]) -> None:
    """Raise `ExportError` where the ONNX nodes `names` are not all operators of the model."""
    graph = onnx.load(source, load_external_data=False).graph
    known = [node.name for node in graph.node]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ExportError(
            f"{source.name} has no operator {', '.join(unknown)} to keep in float; its operators are called "
            f"like {', '.join(known[:3])}"
        )
    weighted = {node.name for node in qdq.quantizable_nodes(graph)}
    found = {op.get_friendly_name().removesuffix(BARE) for op in model.get_ops()}
    lost = sorted(set(names) & weighted - found)
    if lost:
        raise ExportError(f"OpenVINO fused {', '.join(lost)} of {source.name} away; it cannot stay in float")


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


def _own_biases(model: Any) -> None:
    """Let each convolution have its bias for itself: OpenVINO fuses no other, nor a GELU behind it."""
    for op in model.get_ops():
        if op.get_type_name() == "Constant":
            biased = [port for port in op.output(0).get_target_inputs() if _is_bias(port)]
            for port in biased[1:]:
                port.replace_source_output(ops.constant(np.array(op.data)).output(0))


def _is_bias(port: Any) -> bool:
    """Whether an operator's input is what is added behind a convolution."""
    node = port.get_node()
    other = node.input_value(1 - port.get_index()).get_node() if node.get_type_name() == "Add" else None
    return other is not None and other.get_type_name() in ("Convolution", "GroupConvolution")


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
    _own_biases(model)
    _forget_inner_names(model)
    # A model of the same operators, without the converters' notes on their options and files.
    model = ov.Model(model.get_results(), model.get_parameters(), path.stem)
    model.set_rt_info(json.dumps(facts, sort_keys=True), "sam_edge")
    ov.save_model(model, path, compress_to_fp16=False)
    path.write_text(_compact(path.read_text(encoding="utf-8")), encoding="utf-8")
