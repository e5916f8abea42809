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
    """The encoder with weights and activations in INT8; inputs and outputs as `write_encoder`'s.

    The Neural Engine of the A17 Pro, the M4 and later multiplies INT8 by INT8, at about twice the rate
    of FP16; on older chips the weights are smaller and nothing is faster: use INT8 weights there.

    Args:
        sam, model, path, facts: as for `write_encoder`.
        ios: 17 or 18.
        calibration: normalised, padded images (1, 3, S, S): the activations' ranges come from these.

    Returns:
        What is kept in higher precision: the kinds of operation, how many and why.

    Raises:
        ExportError: an argument that Core ML cannot have, or nothing to calibrate with.
    """
    check(ios, "int8")
    if ios < 17:
        raise ExportError(f"W8A8 needs iOS 17 or later, not {ios}; raise the target, or use INT8 weights")
    if not calibration:
        raise ExportError("W8A8 needs calibration images; give some that are normalised and padded")
    quantised = quantise_activations(sam.image_encoder, calibration)
    kept = write_encoder_module(quantised, model, path, facts, "fp16", ios)
    small = sum(isinstance(m, nn.Conv2d | nn.Linear) and _is_small(m) for m in sam.image_encoder.modules())
    if small:
        kept.append(f"{small} conv or linear: FP16, with at most {INT8_THRESHOLD} weights each")
    return [*kept, "matmul, softmax, gelu, add: FP16; INT8 there costs masks"]


class QuantisedLayer(nn.Module):
    """A convolution or linear layer whose weight is stored, and whose input arrives, in INT8.

    Both are symmetric: the weight with one scale an output channel, the input with one scale, as uint8
    where it is never negative. `peak` and `lowest` are the calibrated range of the input.
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
        """What `layer` makes of `x`, through INT8."""
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


def quantise_activations(encoder: nn.Module, calibration: Sequence[NDArray[np.float32]]) -> nn.Module:
    """A copy of `encoder` with every convolution and linear layer a `QuantisedLayer`, but small ones.

    Not coremltools' LinearQuantizer: it puts INT8 into norms and softmax too, which costs the masks,
    and its result is of torch's quantised tensors, which torch.export does not take.
    """
    # Registers torch.ops.quantized_decomposed, the operations that the converter knows.
    importlib.import_module("torch.ao.quantization.fx._decomposed")
    quantised = copy.deepcopy(encoder).eval()
    layers = {
        name: module
        for name, module in quantised.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not _is_small(module)
    }
    ranges = {name: (0.0, 0.0) for name in layers}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            low, peak = ranges[name]
            x = inputs[0]
            ranges[name] = min(low, float(x.min())), max(peak, float(x.abs().max()))

        return note

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    with torch.inference_mode():
        for images in calibration:
            quantised(torch.from_numpy(images))
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(quantised.get_submodule(parent), leaf, QuantisedLayer(layer, *ranges[name]))
    return quantised
