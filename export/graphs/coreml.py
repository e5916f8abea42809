"""Write the two graphs as Core ML ML Programs (`.mlpackage`): FP32, FP16, INT8 weights, or W8A8.

The encoder takes a picture, the letterboxed one, and the size of its valid area: an app hands over a
`CVPixelBuffer` and need not normalise. Where the model's own resizing makes floats, without antialiasing,
the encoder takes these, normalised: rounded to a picture's 8 bits they give other masks. The decoder takes
one prompt a call.

Point counts. Every count of points up to `MAX_POINTS` is accepted, because a padding point changes the
mask. From iOS 18 on both point inputs list their shapes (`EnumeratedShapes`), which the Neural Engine
compiles for; before that Core ML allows one such input a model and there are two, so iOS 16 and 17 get
one bounded range for both. The default is 2 points, a click and its padding point or a box: within a
range, the default is the shape that the Neural Engine takes, others run on the GPU or CPU.

FP16. Norms and the Fourier positions of the prompts stay in FP32, as nothing warns of an activation that
overflows: a checkpoint with larger activations than the ones tested would lose its masks in silence. The
Neural Engine has no FP32, so Core ML runs these few operations on the GPU or CPU.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sam_edge.backends.mil_reference.package import import_coremltools, read_facts, tensors
from sam_edge.errors import ExportError
from sam_edge.models.catalogue import Model
from sam_edge.system.output import suppress_output

from ..architectures.model import PromptAndMaskDecoder, SamModel, decoder_example
from .coreml_fp32_ops import Fp32Ops

__all__ = ["point_counts", "read_facts", "tensors", "write_decoder", "write_encoder", "write_encoder_module"]

IOS = (16, 17, 18)
DEFAULT_IOS = 17
PRECISIONS = ("fp32", "fp16", "int8")
MAX_POINTS = 16
DEFAULT_POINTS = 2

# Constants of at most this many elements stay as they are: biases, norms, tokens, and the small first
# layers, whose errors all others inherit: in INT8 they triple the error of the tiny model's embedding.
INT8_THRESHOLD = 2048


class PictureEncoder(nn.Module):
    """The image encoder behind its preprocessing.

    Padding is zero after normalising, exactly, whatever colour the letterbox had.
    """

    mean: Tensor
    std: Tensor
    steps: Tensor

    def __init__(self, encoder: nn.Module, model: Model) -> None:
        super().__init__()
        self.encoder = encoder
        rules, side = model.preprocess, model.image_size
        self.register_buffer("mean", torch.tensor(rules.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(rules.std)[:, None, None])
        self.register_buffer("steps", torch.arange(side, dtype=torch.float32))

    def forward(self, image: Tensor, resized_size: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(1, 3, S, S) RGB 0 to 255 and (2,) height, width -> what the encoder makes."""
        rows = (self.steps < resized_size[0]).to(image.dtype)
        columns = (self.steps < resized_size[1]).to(image.dtype)
        normalised = (image - self.mean) / self.std
        embeddings: Tensor | tuple[Tensor, ...] = self.encoder(normalised * (rows[:, None] * columns))
        return embeddings


def point_counts(ios: int = DEFAULT_IOS) -> tuple[int, ...]:
    """How many points a prompt may have, box corners and padding points included."""
    check(ios, "fp32")
    return tuple(range(1, MAX_POINTS + 1))


def write_encoder(
    sam: SamModel, model: Model, path: Path, facts: Mapping[str, Any], precision: str, ios: int
) -> list[str]:
    """image (S x S RGB picture), resized_size (2,) float32 -> image_embeddings (1, dim, S/16, S/16).

    Without antialiasing, images (1, 3, S, S) float32, normalised, in place of both inputs.

    Args:
        sam: the reference.
        model: its catalogue entry; padding must be 0.
        path: where to write, a directory that ends in `.mlpackage`.
        facts: goes into the package's metadata as JSON.
        precision: "fp32", "fp16", or "int8": weights in INT8, the rest as in "fp16".
        ios: the oldest iOS that should run it: 16, 17 or 18.

    Returns:
        What is kept in FP32: the kinds of operation, how many and why, one line a reason.

    Raises:
        ExportError: an argument that Core ML cannot have.
    """
    return write_encoder_module(sam.image_encoder, model, path, facts, precision, ios)


def write_decoder(
    sam: SamModel, model: Model, path: Path, facts: Mapping[str, Any], precision: str, ios: int
) -> list[str]:
    """The prompt encoder and mask decoder in one graph, for one prompt of K points; all float32.

    image_embeddings (1, dim, h, w), point_coords (1, K, 2), point_labels (1, K), mask_input
    (1, 1, 4h, 4w), has_mask_input (1,) -> low_res_masks (1, 4, 4h, 4w), iou_predictions (1, 4).
    Arguments, result and errors are those of `write_encoder`.
    """
    check(ios, precision)
    fixed = model.prompt.num_points
    example = decoder_example(model, 1, fixed or 3)
    points = torch.export.Dim("num_points", min=2, max=MAX_POINTS)
    each: dict[int, Any] | None = None if fixed else {1: points}
    dynamic: list[Any] = [None, each, each, None, None]
    dynamic += [(None,) * len(model.extra_embeddings)] if model.extra_embeddings else []
    program = _trace(PromptAndMaskDecoder(sam), tuple(example.values()), tuple(dynamic))
    ct = import_coremltools()
    with suppress_output():
        shapes: dict[str, Any] = {name: tensor.shape for name, tensor in example.items()}
        if not fixed:
            shapes["point_coords"], shapes["point_labels"] = _point_shapes(ct, ios)
        inputs = [ct.TensorType(name, shape, np.float32) for name, shape in shapes.items()]
    return _convert(program, inputs, ["low_res_masks", "iou_predictions"], path, facts, (precision, ios))


def write_module(
    module: nn.Module,
    example: Tensor,
    path: Path,
    *,
    name: str,
    output: str,
    facts: Mapping[str, Any],
    precision: str,
    ios: int,
) -> list[str]:
    """A module of one input, called `name` and shaped as `example`, and one output, float32, called `output`.

    Other arguments, result and errors are those of `write_encoder`.
    """
    check(ios, precision)
    ct = import_coremltools()
    dtype = np.int32 if example.dtype == torch.int32 else np.float32
    inputs = [ct.TensorType(name, example.shape, dtype)]
    return _convert(_trace(module, (example,), None), inputs, [output], path, facts, (precision, ios))


def check(ios: int, precision: str) -> None:
    """Raise `ExportError` for an iOS or a precision that Core ML packages are not written for."""
    if ios not in IOS:
        raise ExportError(f"unknown deployment target iOS {ios}; expected one of {', '.join(map(str, IOS))}")
    if precision not in PRECISIONS:
        raise ExportError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")


def _point_shapes(ct: Any, ios: int) -> tuple[Any, Any]:
    """The flexible shapes of point_coords and point_labels; see the module."""
    if ios >= 18:
        counts = point_counts(ios)
        return (
            ct.EnumeratedShapes([(1, k, 2) for k in counts], default=(1, DEFAULT_POINTS, 2)),
            ct.EnumeratedShapes([(1, k) for k in counts], default=(1, DEFAULT_POINTS)),
        )
    points = ct.RangeDim(1, MAX_POINTS, DEFAULT_POINTS, symbol="num_points")
    return ct.Shape((1, points, 2)), ct.Shape((1, points))


def write_encoder_module(
    encoder: nn.Module, model: Model, path: Path, facts: Mapping[str, Any], precision: str, ios: int
) -> list[str]:
    """As `write_encoder`, of a module in the place of the reference's encoder."""
    check(ios, precision)
    if model.preprocess.pad_value != 0:
        raise ExportError(f"{model.name} pads with {model.preprocess.pad_value}; expected 0 for Core ML")
    side = model.image_size
    images, resized_size = torch.zeros(1, 3, side, side), torch.tensor([float(side), float(side)])
    ct = import_coremltools()
    if model.preprocess.antialias:
        program = _trace(PictureEncoder(encoder, model), (images, resized_size), None)
        inputs = [
            ct.ImageType("image", images.shape, color_layout=ct.colorlayout.RGB),
            ct.TensorType("resized_size", resized_size.shape, np.float32),
        ]
    else:
        program = _trace(encoder, (images,), None)
        inputs = [ct.TensorType("images", images.shape, np.float32)]
    return _convert(program, inputs, list(model.embedding_names), path, facts, (precision, ios))


def _trace(
    module: nn.Module, example: tuple[Tensor, ...], dynamic: tuple[Any, ...] | None
) -> torch.export.ExportedProgram:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(module.eval(), example, dynamic_shapes=dynamic)
        program = program.run_decompositions({})
    # A slice that takes everything is exported as an alias, which the converter does not know.
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.alias.default:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    program.graph_module.recompile()
    return program


def _convert(
    program: torch.export.ExportedProgram,
    inputs: list[Any],
    outputs: list[str],
    path: Path,
    facts: Mapping[str, Any],
    kind: tuple[str, int],
) -> list[str]:
    """Convert to precision and iOS `kind`, and write."""
    (precision, ios), ct = kind, import_coremltools()
    fp32_ops = Fp32Ops()
    compute = ct.precision.FLOAT32
    if precision != "fp32":
        compute = ct.transform.FP16ComputePrecision(op_selector=fp32_ops.allows_fp16)
    with suppress_output():
        package = ct.convert(
            program,
            inputs=inputs,
            outputs=[ct.TensorType(name, dtype=np.float32) for name in outputs],
            minimum_deployment_target=getattr(ct.target, f"iOS{ios}"),
            compute_precision=compute,
            pass_pipeline=_passes(ct, precision),
            skip_model_load=True,
        )
        # The day of the conversion would make equal exports differ.
        package.user_defined_metadata.pop("com.github.apple.coremltools.conversion_date", None)
        package.user_defined_metadata["sam_edge"] = json.dumps(facts, sort_keys=True)
        package.save(str(path))
    # A map from PyTorch's nodes to MIL's, for another tool's debugger.
    (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
    return fp32_ops.summary()


def _passes(ct: Any, precision: str) -> Any:
    """The converter's passes over the graph; for "int8" the last makes the weights INT8.

    Symmetric, one scale an output channel. The pass that folds biases into convolutions looks at
    weights, and fails where they are stored in INT8 already; nothing here needs it.
    """
    passes = ct.PassPipeline()
    passes.remove_passes({"common::fuse_conv_bias"})
    if precision == "int8":
        from coremltools.optimize.coreml import OpLinearQuantizerConfig, OptimizationConfig

        config = OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=INT8_THRESHOLD
        )
        passes.append_pass("compression::linear_quantize_weights")
        passes.set_options(
            "compression::linear_quantize_weights", {"config": OptimizationConfig(global_config=config)}
        )
    return passes
