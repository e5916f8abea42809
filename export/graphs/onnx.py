"""Write the two graphs as ONNX: traced, simplified, checked, with the model's facts inside."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxsim
import torch
from onnxscript import optimizer
from torch import nn

from sam_edge.errors import ExportError
from sam_edge.models.catalogue import Model
from sam_edge.system.output import suppress_output

from ..architectures.model import PromptAndMaskDecoder, SamModel, TextAndMaskDecoder, decoder_example
from .onnx_edit import LARGE_WEIGHT_BYTES, save

OPSET = 18

DECODER_OUTPUTS = ["low_res_masks", "iou_predictions"]
# What masks are made of, behind which scores need nothing.
STAGE_VALUES = ["image_tokens", "mask_weights"]
SCORER_OUTPUTS = ["iou_predictions", *STAGE_VALUES]
UPSCALER_OUTPUTS = ["low_res_masks"]

# Smaller weights are not worth a line on where they are.
_SHARED_BYTES = 1024


def write_encoder(sam: SamModel, model: Model, path: Path) -> None:
    """images (1, 3, S, S) float32 -> image_embeddings (1, dim, h, w) and the extra ones; all static."""
    images = torch.zeros(1, 3, model.image_size, model.image_size)
    trace(sam.image_encoder, (images,), ["images"], list(model.embedding_names), None, path)


def write_decoder(sam: SamModel, model: Model, path: Path, texts: bool = False, stages: bool = False) -> None:
    """The prompt encoder and mask decoder in one graph, batched over prompts and points, with one mask input.

    With `texts`, text embeddings (N, T, dim) are one more input, for any T, 0 included. With `stages`, which
    `mask_decoder_cpu.has_stages`, `STAGE_VALUES` are outputs behind the published ones.
    """
    fixed = model.prompt.num_points
    example = decoder_example(model, 2, fixed or 3, 4 if texts else None)
    prompts, points = torch.export.Dim("num_prompts"), torch.export.Dim("num_points")
    each: dict[int, Any] = {0: prompts} if fixed else {0: prompts, 1: points}
    dynamic: list[Any] = [None, each, each, None, None]
    dynamic += [{0: prompts, 1: torch.export.Dim("num_texts", min=0)}] if texts else []
    # The extra embeddings are one argument, `*extra_embeddings`, if there are any; a tuple of None would be
    # taken for the axes of one tensor.
    dynamic += [({},) * len(model.extra_embeddings)] if model.extra_embeddings else []
    inputs, values = list(example), tuple(example.values())
    decoder = TextAndMaskDecoder(sam) if texts else PromptAndMaskDecoder(sam)
    outputs = DECODER_OUTPUTS + (STAGE_VALUES if stages else [])
    trace(decoder, values, inputs, outputs, tuple(dynamic), path)


def write_upscaler(sam: SamModel, model: Model, path: Path) -> None:
    """The decoder's second stage alone, which takes any number of lines of image tokens: those that hold the
    picture, say. `sam` has stages (`mask_decoder_cpu.has_stages`)."""
    dim, side = model.decoder.dim, model.embedding_side
    example = torch.zeros(2, side * (side // 2), dim), torch.zeros(2, 4, dim // 8)
    prompts, lines = torch.export.Dim("num_prompts"), torch.export.Dim("num_lines", min=1, max=side)
    upscaler: Any = copy.copy(sam.mask_decoder.output_upscaling)
    upscaler.tile_tokens = None
    trace(
        upscaler, example, STAGE_VALUES, UPSCALER_OUTPUTS, ({0: prompts, 1: side * lines}, {0: prompts}), path
    )
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "num_tokens"
    proto.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "num_rows"
    save(proto, path)


def write_part(source: Path, target: Path, outputs: Collection[str], inputs: Collection[str] = ()) -> None:
    """Write the part of a graph that makes some of its outputs, of its own inputs and of `inputs`, which are
    outputs too."""
    proto = onnx.load(source)
    graph = proto.graph
    needed, nodes = set(outputs), list[onnx.NodeProto]()
    for node in reversed(graph.node):
        if needed & set(node.output) - set(inputs):
            nodes.insert(0, node)
            needed |= set(node.input)
    needed &= {*inputs, *(value.name for value in (*graph.input, *graph.initializer))}
    given = [value for value in (*graph.input, *graph.output) if value.name in needed]
    made = [value for name in outputs for value in graph.output if value.name == name]
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    part = onnx.helper.make_graph(nodes, graph.name, given, made, weights)
    proto.graph.CopyFrom(part)
    save(proto, target)


def write_batched(
    module: nn.Module, example: torch.Tensor, name: str, output: str, axis: str, path: Path
) -> None:
    """A module of one input and one output, both with any number of rows, called `axis`."""
    rows = {0: torch.export.Dim(axis)}
    trace(module, (example,), [name], [output], (rows,), path)


def trace(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    dynamic: tuple[Any, ...] | None,
    path: Path,
) -> None:
    """Trace `module`, with static shapes where `dynamic` is None, simplify and write it."""
    proto, large = _trace(module, example, inputs, outputs, dynamic)
    simple, same = onnxsim.simplify(proto)
    if not same:
        raise ExportError(f"simplifying {path.name} changed its outputs; nothing was published")
    for value in [one for one in simple.graph.input if one.name in large]:
        simple.graph.input.remove(value)
    simple.graph.initializer.extend(map(ir.to_proto, large.values()))
    _finish(simple, path)


def stamp(source: Path, target: Path, facts: Mapping[str, Any], shared: Path | None = None) -> None:
    """Write `source` to `target` with the model's facts in its `metadata_props`.

    Weights that are also in `shared`, a graph beside `target`, are read from there: to ONNX its file is
    external data, at an offset each.
    """
    proto = onnx.load(source)
    onnx.helper.set_model_props(proto, {"sam_edge": json.dumps(facts, sort_keys=True)})
    del proto.graph.value_info[:]
    if shared is not None:
        _share_weights(proto.graph, shared)
        _shorten_names(proto.graph)
    save(proto, target)


def _share_weights(graph: onnx.GraphProto, shared: Path) -> None:
    content = shared.read_bytes()
    for tensor in graph.initializer:
        size, offset = len(tensor.raw_data), content.find(tensor.raw_data)
        if size >= _SHARED_BYTES and offset >= 0:
            onnx.external_data_helper.set_external_data(tensor, shared.name, offset, size)
            tensor.ClearField("raw_data")


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Inner names, which nothing asks for, as numbers; those of operators left out."""
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    numbers: dict[str, str] = {}

    def short(name: str) -> str:
        return name if name in kept else numbers.setdefault(name, str(len(numbers)))

    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    for node in graph.node:
        node.ClearField("name")
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]


def tensors(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs of a written graph: name, dtype and shape, dynamic axes by name."""
    graph = onnx.load(path, load_external_data=False).graph
    return [_tensor(v) for v in graph.input], [_tensor(v) for v in graph.output]


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    shape = [d.dim_param if d.HasField("dim_param") else d.dim_value for d in kind.shape.dim]
    return {"name": value.name, "dtype": dtype, "shape": shape}


def _trace(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    dynamic: tuple[Any, ...] | None,
) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The graph; and, where its shapes are static, its large weights, which are inputs of it meanwhile: a
    protobuf message cannot pass 2 GiB, and nothing simpler is to be made of them."""
    large: dict[str, ir.TensorProtocol] = {}
    with suppress_output():
        program = torch.onnx.export(
            module.eval(),
            example,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamic_shapes=dynamic,
            dynamo=True,
            # Of a static graph of thousands of nodes, as ViT-B's, it takes a quarter of an hour.
            optimize=dynamic is not None,
            verbose=False,
        )
        assert program is not None
        if dynamic is None:
            every = sys.maxsize
            optimizer.fold_constants(program.model, input_size_limit=every, output_size_limit=every)
            optimizer.remove_unused_nodes(program.model)
            graph = program.model.graph
            for name, value in list(graph.initializers.items()):
                tensor = value.const_value
                if tensor is not None and tensor.nbytes >= LARGE_WEIGHT_BYTES:
                    large[name] = tensor
                    graph.initializers.pop(name)
                    graph.inputs.append(value)
    return program.model_proto, large


def _finish(proto: onnx.ModelProto, path: Path) -> None:
    _lift_constants(proto.graph)
    _group_gelu(proto.graph)
    for node in proto.graph.node:
        # Traces of the exporter's own source files and machine.
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.metadata_props[:], proto.graph.value_info[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    del proto.metadata_props[:]
    save(proto, path)


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Constants that are nodes become initializers, as the others are."""
    for node in [one for one in graph.node if one.op_type == "Constant"]:
        (attribute,) = node.attribute
        value = onnx.helper.get_attribute_value(attribute)
        if not isinstance(value, onnx.TensorProto):  # `value_floats` and the like: plain numbers
            kind = np.float32 if attribute.name.startswith("value_float") else np.int64
            value = onnx.numpy_helper.from_array(np.array(value, kind))
        tensor = graph.initializer.add()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        graph.node.remove(node)


def _group_gelu(graph: onnx.GraphProto) -> None:
    """x (0.5 (1 + erf ...)) as (0.5 x) (1 + erf ...), the form of GELU that runtimes have a kernel for."""
    made = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        half = made.get(node.input[1]) if node.op_type == "Mul" else None
        rest = made.get(half.input[1]) if half is not None and half.op_type == "Mul" else None
        curve = made.get(rest.input[0]) if rest is not None and rest.op_type == "Add" else None
        if half is not None and curve is not None and curve.op_type in ("Erf", "Tanh"):
            node.input[0], half.input[1] = half.input[1], node.input[0]
