"""W8A8 in Core ML: weights and activations of the encoder's convolutions and linear layers in INT8."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sam_edge.errors import ExportError
from sam_edge.models.catalogue import Model

from ..architectures.model import SamModel
from ..graphs.coreml import INT8_THRESHOLD, check, write_encoder_module


def write_encoder_w8a8(
    sam: SamModel,
    model: Model,
    path: Path,
    facts: Mapping[str, Any],
    ios: int,
    calibration: Sequence[NDArray[np.float32]],
) -> list[str]:
    """Write the encoder with weights and activations in INT8; inputs and outputs are as in `write_encoder`.

    The Neural Engine of the A17 Pro, the M4 and later multiplies INT8 by INT8 at about twice the rate of
    FP16. On older chips only the file is smaller: use INT8 weights there.

    Args:
        sam, model, path, facts: as in `write_encoder`.
        ios: 17 or 18.
        calibration: normalised and padded images, (1, 3, S, S) float32 each, to measure activation ranges on.

    Returns:
        What stayed in higher precision: the kinds of operation, how many and why.

    Raises:
        ExportError: Core ML does not support an argument, or `calibration` is empty.
    """
    check(ios, "int8")
    if ios < 17:
        raise ExportError(f"W8A8 needs iOS 17 or later, not {ios}; raise the target, or use INT8 weights")
    if not calibration:
        raise ExportError("W8A8 needs calibration images; give some that are normalised and padded")
    quantized = quantize_activations(sam.image_encoder, calibration)
    kept = write_encoder_module(quantized, model, path, facts, "fp16", ios)
    small = sum(isinstance(m, nn.Conv2d | nn.Linear) and _is_small(m) for m in sam.image_encoder.modules())
    if small:
        kept.append(f"{small} conv or linear: FP16, with at most {INT8_THRESHOLD} weights each")
    return [*kept, "matmul, softmax, gelu, add: FP16; INT8 there costs masks"]


class QuantizedLayer(nn.Module):
    """A convolution or linear layer with INT8 weights and an INT8 input.

    Quantization is symmetric: weights have one scale per output channel, the input has one scale and is UINT8
    where it is never negative.

    Args:
        layer: the FP32 layer; its weight is removed.
        lowest: smallest value of the input on the calibration images.
        peak: largest magnitude of the input on the calibration images.
    """

    weight: Tensor
    weight_scale: Tensor
    zero: Tensor

    def __init__(self, layer: nn.Module, lowest: float, peak: float) -> None:
        super().__init__()
        self.layer = layer
        weight = layer.get_parameter("weight").detach()
        scale = weight.abs().amax(dim=tuple(range(1, weight.dim()))).clamp_min(1e-8) / 127
        steps = (weight / scale.reshape(-1, *[1] * (weight.dim() - 1))).round().clamp(-127, 127)
        del layer._parameters["weight"]
        self.register_buffer("weight", steps.to(torch.int8))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int8))
        low, high, kind = (0, 255, torch.uint8) if lowest >= 0 else (-128, 127, torch.int8)
        self.input_type = (max(peak / high, 1e-6), 0, low, high, kind)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to an input of any shape that it accepts."""
        ops = torch.ops.quantized_decomposed
        steps = ops.quantize_per_tensor(x, *self.input_type)
        x = ops.dequantize_per_tensor(steps, *self.input_type)
        weight = ops.dequantize_per_channel(
            self.weight, self.weight_scale, self.zero, 0, -128, 127, torch.int8
        )
        result: Tensor = torch.func.functional_call(self.layer, {"weight": weight}, (x,))
        return result


def _is_small(layer: nn.Conv2d | nn.Linear) -> bool:
    return layer.weight.numel() <= INT8_THRESHOLD


def quantize_activations(encoder: nn.Module, calibration: Sequence[NDArray[np.float32]]) -> nn.Module:
    """Copy `encoder` with every convolution and linear layer except small ones as a `QuantizedLayer`.

    coremltools' LinearQuantizer does not serve: it also quantizes norms and softmax, which costs mask
    quality, and its result has quantized tensors, which torch.export does not support.
    """
    # Registers torch.ops.quantized_decomposed, which the converter supports.
    importlib.import_module("torch.ao.quantization.fx._decomposed")
    quantized = copy.deepcopy(encoder).eval()
    layers = {
        name: module
        for name, module in quantized.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not _is_small(module)
    }
    ranges = {name: (0.0, 0.0) for name in layers}

    def observe(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            low, peak = ranges[name]
            x = inputs[0]
            ranges[name] = min(low, float(x.min())), max(peak, float(x.abs().max()))

        return hook

    hooks = [layer.register_forward_pre_hook(observe(name)) for name, layer in layers.items()]
    with torch.inference_mode():
        for images in calibration:
            quantized(torch.from_numpy(images))
    for handle in hooks:
        handle.remove()
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(quantized.get_submodule(parent), leaf, QuantizedLayer(layer, *ranges[name]))
    return quantized
