"""Graphs for Qualcomm's Hexagon NPU (HTP): static, whole on the chip, in FP16 or with QDQ of 8-bit weights.

The chip has no FP32 and its compiler takes static shapes only. So the encoder and decoder are traced anew:

- the decoder takes one prompt of up to `MAX_POINTS` points. Further padding points would change its masks, so
  what is missing has a label of its own, which attention does not see: masks are those of the points given;
- LayerNorm2d is written as the norm over the last axis that the chip has an operator for. As the published
  mean of squares it overflows FP16 beyond 255, which costs the embedded model 2% of its embedding.

"int8" is A16W8: weights in 8 bits, one scale a channel, and activations in 16, as Qualcomm's own recipes for
transformers have it. Everything is quantised, softmax and norms too, but what depends on a prompt's points
alone, whose coordinates need no range but digits, and the products that the search finds to cost too much.
These run in FP16. "fp16" is all in FP16.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config, qnn_preprocess_model
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import Tensor, nn
from torch.nn import functional as F

from sam_edge.backends.onnxruntime.isolated import open_isolated
from sam_edge.errors import DeviceError, ExportError
from sam_edge.models.catalogue import Model
from sam_edge.runtime.prompts import ABSENT
from sam_edge.system.output import suppress_output

from ..architectures.layers import LayerNorm2d
from ..architectures.mask_decoder import Attention
from ..architectures.model import PromptAndMaskDecoder, SamModel, decoder_example
from ..formats.onnx import DECODER_OUTPUTS, trace
from ..quantize.ranges import CalibrationReader, Inputs

PACKAGE = "onnxruntime_qnn"
# The mean IoU that each precision must reach. FP16 through and through costs more than that of other formats,
# which keep norms and coordinates in FP32.
GATES = {"fp16": 0.99, "int8": 0.95}
MAX_POINTS = 16
# Added to what an absent point would score in attention: to a softmax as good as minus infinity, and 16 bits
# still have digits for the other scores.
NEVER = -100.0


class LastAxisNorm(nn.Module):
    """`LayerNorm2d` as a LayerNorm over the last axis: the same function."""

    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        last = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return last.permute(0, 3, 1, 2)


class _Scores:
    """What is added to attention's scores during a run: (1, 1, 1, tokens), or None."""

    bias: Tensor | None = None


class BiasedAttention(nn.Module):
    """`Attention` with something added to the scores of each key."""

    def __init__(self, attention: Attention, scores: _Scores) -> None:
        super().__init__()
        self.attention, self.scores = attention, scores

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `Attention.forward`."""
        inner, bias = self.attention, self.scores.bias
        assert bias is not None
        q, k, v = (inner._heads(f(x)) for f, x in ((inner.q_proj, q), (inner.k_proj, k), (inner.v_proj, v)))
        scores = (q @ k.transpose(2, 3)) / math.sqrt(q.shape[3])
        weights = torch.softmax(scores + bias, dim=-1)
        return inner.out_proj((weights @ v).transpose(1, 2).flatten(2))


class FixedPointsDecoder(nn.Module):
    """`PromptAndMaskDecoder` for one prompt, in which points with the label `ABSENT` have no part."""

    def __init__(self, sam: SamModel) -> None:
        super().__init__()
        self.inner = PromptAndMaskDecoder(copy.deepcopy(sam))
        self.scores = _Scores()
        layer: Any
        for layer in self.inner.sam.mask_decoder.transformer.layers:
            # Where tokens are keys.
            layer.self_attn = BiasedAttention(layer.self_attn, self.scores)
            layer.cross_attn_image_to_token = BiasedAttention(layer.cross_attn_image_to_token, self.scores)

    def forward(
        self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        """As `SamModel.decode` for N = 1."""
        outputs = self.inner.sam.mask_decoder.output_tokens().shape[0]
        absent = (point_labels == ABSENT).to(point_coords.dtype)
        bias = torch.cat([absent.new_zeros(1, outputs), absent * NEVER], dim=1)
        self.scores.bias = bias[:, None, None]
        try:
            return self.inner(image_embeddings, point_coords, point_labels, *rest)
        finally:
            self.scores.bias = None


def has_absent_points(model: Model) -> bool:
    """Whether the decoder knows `ABSENT`; models of a fixed number of points fill up with padding points."""
    return model.prompt.num_points is None


def write_encoder(sam: SamModel, model: Model, path: Path) -> None:
    """images (1, 3, S, S) float32 -> as `onnx.write_encoder`, in FP32."""
    images = torch.zeros(1, 3, model.image_size, model.image_size)
    encoder = _with_last_axis_norms(copy.deepcopy(sam.image_encoder))
    trace(encoder, (images,), ["images"], list(model.embedding_names), None, path)
    _check(path)


def write_decoder(sam: SamModel, model: Model, path: Path) -> None:
    """As `onnx.write_decoder` for one prompt and as many points as there may be, in FP32."""
    example = decoder_example(model, 1, model.prompt.num_points or MAX_POINTS)
    # Also for a model that needs no absent points: without the sum, its attention would be fused.
    decoder = _with_last_axis_norms(FixedPointsDecoder(sam))
    trace(decoder, tuple(example.values()), list(example), DECODER_OUTPUTS, None, path)
    _check(path)


def _with_last_axis_norms(module: nn.Module) -> nn.Module:
    for name, child in list(module.named_children()):
        if isinstance(child, LayerNorm2d):
            setattr(module, name, LastAxisNorm(child))
        else:
            _with_last_axis_norms(child)
    return module


# The compiler ends its process at the first, and refuses the second.
_REFUSED = ("Tile", "Einsum")


def _check(path: Path) -> None:
    """Raise `ExportError` for a graph that the compiler does not take."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    refused = {node.op_type for node in nodes if node.op_type in _REFUSED or node.domain}
    if refused:
        raise ExportError(
            f"{path.name} holds {', '.join(sorted(refused))}, which Qualcomm's compiler does not take; this "
            "model cannot be exported for the NPU yet"
        )


def to_fp16(source: Path, target: Path) -> None:
    """Write the FP32 graph `source` to `target` in FP16 throughout, with FP32 inputs and outputs."""
    with suppress_output():
        proto = convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=[])
    # The casts are appended at the end, which the standard does not allow.
    OnnxModel(proto).topological_sort()
    onnx.save(proto, target)


def to_int8(
    source: Path, target: Path, inputs: Iterable[Inputs], keep_float: Collection[str] = ()
) -> list[str]:
    """Write the FP32 graph `source` to `target` as QDQ, A16W8; returns the nodes of the prompt left in float.

    Args:
        source: an FP32 graph of `write_encoder` or `write_decoder`.
        target: where to write.
        inputs: to calibrate with.
        keep_float: names of nodes to leave in float.
    """
    with suppress_output():
        ready = target.with_suffix(".fused.onnx")
        # GELU as one operator, which has a range of its own.
        if not qnn_preprocess_model(source, ready):
            ready = source
        graph = onnx.load(ready, load_external_data=False).graph
        points = _of_points_alone(graph)
        # The chip's norm takes unsigned scales.
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


_NORM = "LayerNormalization"
_PROMPT = {"point_coords", "point_labels"}


def _of_points_alone(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that depend on the points and on no other input."""
    reads = {value.name: {value.name} for value in graph.input}
    found = []
    for node in graph.node:
        inputs: set[str] = set().union(*(reads.get(name, set()) for name in node.input))
        reads |= dict.fromkeys(node.output, inputs)
        if inputs and inputs <= _PROMPT:
            found.append(node.name)
    return found


@torch.inference_mode()
def decoder_inputs(
    sam: SamModel, model: Model, images: Sequence[NDArray[np.float32]], seed: int = 0
) -> Iterator[dict[str, Any]]:
    """A click, a box, three clicks, and a click with the mask it made, somewhere on each of `images`.

    Args:
        sam: the reference.
        model: its catalogue entry.
        images: (1, 3, S, S) float32 each.
        seed: of the places.
    """
    rng = np.random.default_rng(seed)
    side, low, count = model.coordinate_size, 4 * model.embedding_side, model.prompt.num_points or MAX_POINTS
    rest = ABSENT if has_absent_points(model) else -1
    for image in images:
        found = [tensor.numpy() for tensor in sam.encode(torch.from_numpy(image))]
        embeddings = dict(zip(model.embedding_names, found, strict=True))
        a, b, c, d, e, f = rng.uniform(0.05, 0.95, (6, 2)) * side
        prompts = [
            ([a, [0, 0]], [1, -1]),
            ([np.minimum(a, b), np.maximum(a, b)], [2, 3]),
            ([c, d, e, [0, 0]], [1, 0, 1, -1]),
            ([f, [0, 0]], [1, -1]),
        ]
        mask, has_mask = np.zeros((1, 1, low, low), np.float32), np.zeros(1, np.float32)
        for coords, labels in prompts:
            points = np.zeros((1, count, 2), np.float32)
            codes = np.full((1, count), rest, np.float32)
            points[0, : len(coords)], codes[0, : len(labels)] = coords[:count], labels[:count]
            given = {
                **embeddings,
                "point_coords": points,
                "point_labels": codes,
                "mask_input": mask,
                "has_mask_input": has_mask,
            }
            yield given
        if model.prompt.mask_prompt:
            decoded = sam.decode(*map(torch.from_numpy, _in_order(given, model, labels)))[0].numpy()
            yield {**given, "mask_input": decoded[:, -1:], "has_mask_input": np.ones(1, np.float32)}


def _in_order(given: dict[str, Any], model: Model, labels: Sequence[int]) -> list[NDArray[np.float32]]:
    """The inputs of `SamModel.decode`, without absent points, which the reference does not know."""
    values = dict(given)
    for name in ("point_coords", "point_labels"):
        values[name] = values[name][:, : model.prompt.num_points or len(labels)]
    names = [*decoder_example(model, 1, 1)]
    return [np.ascontiguousarray(values[name]) for name in names]


def can_compile() -> bool:
    """Whether Qualcomm's compiler is here."""
    from sam_edge.backends import get_backend

    return find_spec(PACKAGE) is not None and any(
        one.available and one.name.startswith("QNNExecutionProvider")
        for one in get_backend("onnxruntime").devices()
    )


def write_context(source: Path, target: Path) -> None:
    """Compile a graph into `target`, for the chip in `sam_edge.backends.onnxruntime.providers.SIMULATED_QNN`.

    Raises:
        DeviceError: the chip does not take all of it.
        CrashError: the compiler crashed.
    """
    session = open_isolated(
        source, device="QNNExecutionProvider", threads=None, allow_fallback=False, context_file=target
    )
    session.close()
    if not target.is_file():
        raise DeviceError(f"Qualcomm's compiler wrote nothing for {source.name}; try another version of it")
