"""Write OpenVINO IR: converted from the FP32 ONNX files, with the model's facts inside.

The ONNX files are the source, and not PyTorch once more, because operators then keep one name through
both formats: what has to stay in float is one list. A MatMul or Conv that has a bias is called
`NAME/WithoutBiases` in OpenVINO; `keep_float` takes the ONNX name.

Constants of at most `SMALL_CONSTANT` numbers (biases, norms, scales, the prompt encoder's Fourier matrix)
stay in FP32 in every precision. That costs nothing, as each compressed constant needs more description in the
.xml than it saves.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from sam_edge.backends.openvino import no_telemetry, read_model
from sam_edge.errors import ExportError
from sam_edge.system.output import suppress_output

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
    model = convert_onnx(source, static)
    kept = []
    if precision != "fp32":
        model = compress_to_fp16(model, path.parent)
        kept.append(f"constants of up to {SMALL_CONSTANT} numbers (biases, norms, Fourier matrix): fp32")
    save(model, path, facts)
    return kept


def share_weights(path: Path, other: Path) -> None:
    """Let the graph `path` read its weights from the .bin of `other`, beside it, and delete its own.

    The little that is not there, constants that only one of them needs, is appended.
    """
    own, shared = path.with_suffix(".bin"), other.with_suffix(".bin")
    weights, content = own.read_bytes(), shared.read_bytes()
    root = ElementTree.parse(path).getroot()
    for constant in root.iter("data"):
        if "offset" in constant.attrib:
            start, size = int(constant.attrib["offset"]), int(constant.attrib["size"])
            one = weights[start : start + size]
            content += b"" if one in content else one
            constant.set("offset", str(content.find(one)))
    _write_xml(root, path)
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


def convert_onnx(source: Path, static: bool) -> Any:
    """OpenVINO's model of an FP32 ONNX file; `static` as in `write`. Raises `ExportError` as `write`."""
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


def compress_to_fp16(model: Any, directory: Path) -> Any:
    """Convert FP32 constants to FP16, but for the small ones.

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


def _compact(root: ElementTree.Element) -> None:
    """Leave out what a reader does not need, in place: it is more than half of the text.

    Indentation, names of operators but those of inputs and outputs, and what OpenVINO infers anew when it
    reads a graph: shapes of inputs and outputs and types of inputs.
    """
    for element in root.iter():
        element.text, element.tail = (
            text if text and text.strip() else None for text in (element.text, element.tail)
        )
    for layer in root.iter("layer"):
        if layer.attrib["type"] not in ("Parameter", "Result"):
            layer.set("name", layer.attrib["id"])
        for port in layer.iter("port"):
            if all(child.tag == "dim" for child in port):
                for dim in list(port):
                    port.remove(dim)
        for port in layer.iterfind("input/port"):
            port.attrib.pop("precision", None)


def _write_xml(root: ElementTree.Element, path: Path) -> None:
    text = ElementTree.tostring(root, encoding="unicode").replace('" />', '"/>')
    path.write_text(f'<?xml version="1.0"?>{text}\n', encoding="utf-8")


def save(model: Any, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a model to `path` (.xml) and the .bin beside it, with `facts` as JSON in its `rt_info`."""
    _share_constants(model)
    _own_biases(model)
    _forget_inner_names(model)
    # A model of the same operators, without the converters' notes on their options and files.
    model = ov.Model(model.get_results(), model.get_parameters(), path.stem)
    model.set_rt_info(json.dumps(facts, sort_keys=True), "sam_edge")
    ov.save_model(model, path, compress_to_fp16=False)
    root = ElementTree.parse(path).getroot()
    _compact(root)
    _write_xml(root, path)
