"""Exact rewrites of the image encoder that make it easier to quantize; shared by every format.

Static INT8 has one scale per activation tensor and one per output channel of a weight. A channel that is much
larger than the others, or far from zero, costs all of them precision. In the following places the scale or
offset can be moved into a neighbouring layer without changing the outputs:

- LayerNorm -> Linear or Conv2d: scales go from the norm's affine into the layer (SmoothQuant, Xiao et al.
  2023);
- keys: a constant added to every key cancels in the softmax, also with SAM's relative positions,
  which depend on the query only. Offset keys are what breaks SAM's attention (PTQ4SAM, Lv et al. 2024);
- queries against keys, and values against the projection: attention is linear in each;
- the convolutional trunk: blocks end without activation, so the residual stream of a stage can be
  rescaled across its producers and consumers (cross-layer equalization, Nagel et al. 2019). ReLU6
  is not homogeneous, so nothing is moved across it.

Offsets of norms (Outlier Suppression+, Wei et al. 2023) and of values can be moved likewise, which gains
nothing measurable: docs/notes/2026-11-30-which-rewrites-int8-needs.md.

Every scale is the geometric mean of the two sides, so that the result does not depend on an exact rescaling
that the checkpoint already contains.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..architectures.image_encoder_tiny import ImageEncoderTiny, InvertedResidual
from ..architectures.layers import LayerNorm2d
from ..architectures.model import SamModel

Norm = nn.LayerNorm | LayerNorm2d
Layer = nn.Linear | nn.Conv2d
# A channel that is nearly zero on the calibration images may be larger on others: bounds its scale.
FLOOR = 1e-4


def floored(peak: Tensor) -> Tensor:
    """Clamp peaks (C,) from below to `FLOOR` times the largest."""
    return peak.clamp_min(max(FLOOR * float(peak.max()), FLOOR**2))


@dataclass
class Range:
    """Range of each channel of a tensor on the calibration images; updated by each rewrite."""

    low: Tensor
    high: Tensor

    @property
    def centre(self) -> Tensor:
        """Middle of the range, (C,)."""
        return (self.low + self.high) / 2

    @property
    def peak(self) -> Tensor:
        """Largest magnitude, (C,)."""
        return floored(torch.maximum(self.low.abs(), self.high.abs()))

    def move(self, offset: Tensor) -> None:
        """Update the range after `offset` was subtracted from the tensor."""
        self.low, self.high = self.low - offset, self.high - offset

    def divide(self, scale: Tensor) -> None:
        """Update the range after the tensor was divided by `scale`, which is positive."""
        self.low, self.high = self.low / scale, self.high / scale


Seen = dict[nn.Module, Range]


@dataclass(frozen=True)
class Link:
    """A norm whose output is read by `layer`, by `other` if there is one, and by nothing else.

    Attributes:
        norm: the norm.
        layer: the layer that reads it.
        padded: whether zeros are padded between norm and layer.
        other: a second layer that reads it.
    """

    norm: Norm
    layer: Layer
    padded: bool
    other: Layer | None = None

    @property
    def readers(self) -> tuple[Layer, ...]:
        """The layers that read the norm."""
        return (self.layer,) if self.other is None else (self.layer, self.other)


@dataclass(frozen=True)
class Stream:
    """A residual stream: the sum of what `producers` write, read by `consumers` without activation."""

    producers: list[nn.Conv2d] = field(default_factory=list)
    consumers: list[nn.Conv2d] = field(default_factory=list)
    blocks: list[InvertedResidual] = field(default_factory=list)


def links(encoder: nn.Module) -> Iterator[Link]:
    """Find the norms of transformer blocks and of the neck whose outputs only linear layers read."""
    block: Any
    for block in encoder.modules():
        if hasattr(block, "norm1") and hasattr(block, "norm2"):
            # Windows are padded with zeros after norm1.
            attention = getattr(block, "attn", block)
            # Where Hiera's width changes, the residual connection is a projection of norm1's output too.
            shortcut = None if attention is block else getattr(block, "proj", None)
            yield Link(block.norm1, attention.qkv, getattr(block, "window", 0) > 0, shortcut)
            yield Link(block.norm2, block.mlp.lin1, padded=False)
        for layer in ("qkv", "fc1"):
            # TinyViT's attention and MLP begin with their norms; windows are padded before them.
            if hasattr(block, "norm") and hasattr(block, layer):
                yield Link(block.norm, getattr(block, layer), padded=False)
        if isinstance(block, nn.Sequential):
            for first, second in zip(block, list(block)[1:], strict=False):
                if isinstance(first, Norm) and isinstance(second, Layer):
                    yield Link(first, second, padded=is_padded(second))


def attentions(encoder: nn.Module) -> Iterator[Any]:
    """Find attention modules with `qkv`, `proj` and `num_heads`, except those that have yet to be fused."""
    needed = ("qkv", "proj", "num_heads")
    return (m for m in encoder.modules() if all(hasattr(m, n) for n in needed) and not hasattr(m, "fuse"))


def tables(attention: Any) -> list[Tensor]:
    """The relative positions of an attention, (n, width) each, which multiply the queries of every head."""
    return [getattr(attention, name) for name in ("rel_pos_h", "rel_pos_w") if hasattr(attention, name)]


def streams(encoder: nn.Module) -> list[Stream]:
    """Find the residual streams of a trunk of inverted residuals."""
    if not isinstance(encoder, ImageEncoderTiny):
        return []
    # The first stream is the stem's, which ReLU6 precedes: it is dropped below.
    found = [Stream()]
    for index, stage in enumerate(encoder.stages):
        for block in stage:  # type: ignore[attr-defined]
            found[-1].consumers.append(block.expand or block.depthwise)
            if not block.residual:
                found.append(Stream())
            found[-1].producers.append(block.project)
            found[-1].blocks.append(block)
        if str(index) in encoder.folds:
            found[-1].consumers.append(encoder.folds[str(index)])  # type: ignore[arg-type]
    return [stream for stream in found[1:] if stream.consumers]


def observe(encoder: nn.Module, calibration: Sequence[NDArray[np.float32]]) -> Seen:
    """Measure the ranges of the tensors that rewrites change, on calibration images (1, 3, S, S)."""
    seen: Seen = {}

    def keep(module: nn.Module, _: Any, output: Tensor) -> None:
        axis = output.dim() - 1 if isinstance(module, nn.LayerNorm | nn.Linear) else 1
        rest = [i for i in range(output.dim()) if i != axis]
        low, high = output.amin(rest).double(), output.amax(rest).double()
        if module in seen:
            low, high = torch.minimum(low, seen[module].low), torch.maximum(high, seen[module].high)
        seen[module] = Range(low, high)

    watched: set[nn.Module] = {link.norm for link in links(encoder)}
    watched |= {attention.qkv for attention in attentions(encoder)}
    watched |= {block for stream in streams(encoder) for block in stream.blocks}
    hooks = [module.register_forward_hook(keep) for module in watched]
    with torch.inference_mode():
        for images in calibration:
            encoder(torch.from_numpy(images))
    for hook in hooks:
        hook.remove()
    return {module: Range(r.low.clone(), r.high.clone()) for module, r in seen.items()}


def is_padded(layer: Layer) -> bool:
    """Whether `layer` pads its input with zeros."""
    return isinstance(layer, nn.Conv2d) and (type(layer) is not nn.Conv2d or layer.padding != (0, 0))


def input_axis(layer: Layer) -> int:
    """The axis of input channels in a layer's weight: 0 for depthwise convolutions, else 1."""
    return 0 if isinstance(layer, nn.Conv2d) and layer.groups > 1 else 1


def _along(values: Tensor, weight: Tensor, axis: int) -> Tensor:
    return values.reshape([-1 if i == axis else 1 for i in range(weight.dim())])


def input_peak(layer: Layer) -> Tensor:
    """Largest magnitude of the weights that read each input channel, (C,)."""
    axis = input_axis(layer)
    rest = [i for i in range(layer.weight.dim()) if i != axis]
    return floored(layer.weight.double().abs().amax(rest))


def scale_inputs(layer: Layer, scale: Tensor) -> None:
    """Multiply a layer's weights such that its inputs may be divided by `scale`, in place."""
    weight = layer.weight.double()
    layer.weight.copy_(weight * _along(scale, weight, input_axis(layer)))


def divide_outputs(layer: Layer | Norm, scale: Tensor, rows: slice = slice(None)) -> None:
    """Divide the outputs `rows` of a layer by `scale`, in place."""
    weight = layer.weight[rows].double()
    layer.weight[rows].copy_(weight / _along(scale, weight, 0))
    if layer.bias is not None:
        layer.bias[rows].copy_(layer.bias[rows].double() / scale)


def lower_bias(layer: Layer | Norm, offset: Tensor, rows: slice = slice(None)) -> None:
    """Subtract `offset` from the outputs `rows` of a layer, in place."""
    assert layer.bias is not None
    layer.bias[rows].copy_(layer.bias[rows].double() - offset)


def smooth_norms(encoder: nn.Module, seen: Seen) -> None:
    """Balance each channel of a norm's output with the weights that read it."""
    for link in links(encoder):
        weights = torch.stack([input_peak(layer) for layer in link.readers]).amax(0)
        scale = (seen[link.norm].peak / weights).sqrt()
        divide_outputs(link.norm, scale)
        for layer in link.readers:
            scale_inputs(layer, scale)
        seen[link.norm].divide(scale)


def _part(seen: Seen, attention: Any, part: int) -> tuple[slice, Range]:
    """The rows of `qkv` that compute queries (0), keys (1) or values (2), and their range."""
    dim = attention.proj.in_features
    rows = slice(part * dim, (part + 1) * dim)
    whole = seen[attention.qkv]
    return rows, Range(whole.low[rows], whole.high[rows])


def _moved(seen: Seen, attention: Any, rows: slice, offset: Tensor) -> None:
    lower_bias(attention.qkv, offset, rows)
    whole = torch.zeros_like(seen[attention.qkv].low)
    whole[rows] = offset
    seen[attention.qkv].move(whole)


def _divided(seen: Seen, attention: Any, rows: slice, scale: Tensor) -> None:
    divide_outputs(attention.qkv, scale, rows)
    whole = torch.ones_like(seen[attention.qkv].low)
    whole[rows] = scale
    seen[attention.qkv].divide(whole)


def centre_keys(encoder: nn.Module, seen: Seen) -> None:
    """Subtract a constant from every key. Padded keys, which equal the bias, move alike."""
    for attention in attentions(encoder):
        rows, keys = _part(seen, attention, 1)
        _moved(seen, attention, rows, keys.centre)


def balance_queries(encoder: nn.Module, seen: Seen) -> None:
    """Divide each query channel and multiply the key's by the same, until both are as large.

    Relative positions multiply the queries and are shared by the heads, and so is then the scale.
    """
    for attention in attentions(encoder):
        (q_rows, queries), (k_rows, keys) = (_part(seen, attention, part) for part in (0, 1))
        q, k = (r.peak.reshape(attention.num_heads, -1) for r in (queries, keys))
        if tables(attention):
            q, k = (peak.amax(0, keepdim=True).expand_as(peak) for peak in (q, k))
        scale = (q / k).sqrt()
        _divided(seen, attention, q_rows, scale.flatten())
        _divided(seen, attention, k_rows, 1 / scale.flatten())
        for table in tables(attention):
            table.copy_(table.double() * scale[0])


def scale_values(encoder: nn.Module, seen: Seen) -> None:
    """Balance each value channel with the column of `proj` that reads it."""
    for attention in attentions(encoder):
        rows, values = _part(seen, attention, 2)
        scale = (values.peak / input_peak(attention.proj)).sqrt()
        _divided(seen, attention, rows, scale)
        scale_inputs(attention.proj, scale)


def equalize_trunk(encoder: nn.Module, seen: Seen) -> None:
    """Balance each channel of a residual stream with the weights that read it."""
    for stream in streams(encoder):
        peak = torch.stack([seen[block].peak for block in stream.blocks]).amax(0)
        weights = torch.stack([input_peak(layer) for layer in stream.consumers]).amax(0)
        scale = (peak / weights).sqrt()
        for producer in stream.producers:
            divide_outputs(producer, scale)
        for consumer in stream.consumers:
            scale_inputs(consumer, scale)
        for block in stream.blocks:
            seen[block].divide(scale)


Rewrite = Callable[[nn.Module, Seen], None]

# Offsets before scales, since centred values need less range; and the rows of `qkv` before its columns.
REWRITES: dict[str, Rewrite] = {
    function.__name__: function
    for function in (
        centre_keys,
        balance_queries,
        scale_values,
        smooth_norms,
        equalize_trunk,
    )
}


def rewrite(
    sam: SamModel, calibration: Sequence[NDArray[np.float32]], only: Collection[str] | None = None
) -> tuple[SamModel, list[str]]:
    """Copy `sam` and rewrite the copy's image encoder.

        >>> equalized, names = rewrite(sam, calibration.images)

    Args:
        sam: in evaluation mode; left as it is.
        calibration: preprocessed images, (1, 3, S, S) float32 each.
        only: names of the `REWRITES` to apply; all if None.

    Returns:
        The copy, and the names of the rewrites in the order in which they were applied.
    """
    names = [name for name in REWRITES if only is None or name in only]
    sam = copy.deepcopy(sam)
    seen = observe(sam.image_encoder, calibration)
    with torch.no_grad():
        for name in names:
            REWRITES[name](sam.image_encoder, seen)
    return sam, names
