"""The reference as Qualcomm's Hexagon NPU needs it: static shapes, norms over the last axis, absent points.

- The chip's compiler takes static shapes only. So the decoder takes one prompt of `MAX_POINTS` points.
  Further padding points would change its masks, so what is missing has a label of its own, which attention
  does not see: masks are those of the points given.
- LayerNorm2d is written as the norm over the last axis that the chip has an operator for. As the published
  mean of squares it overflows FP16 beyond 255, which costs the embedded model 2% of its embedding.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_edge.models.catalogue import Model
from sam_edge.runtime.prompts import ABSENT

from .layers import LayerNorm2d
from .mask_decoder import Attention
from .model import PromptAndMaskDecoder, SamModel

MAX_POINTS = 16
# Added to what an absent point would score in attention: to a softmax as good as minus infinity, and 16 bits
# still have digits for the other scores.
ABSENT_POINT_BIAS = -100.0


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
        bias = torch.cat([absent.new_zeros(1, outputs), absent * ABSENT_POINT_BIAS], dim=1)
        self.scores.bias = bias[:, None, None]
        try:
            return self.inner(image_embeddings, point_coords, point_labels, *rest)
        finally:
            self.scores.bias = None


def has_absent_points(model: Model) -> bool:
    """Whether the decoder knows `ABSENT`; models of a fixed number of points fill up with padding points."""
    return model.prompt.num_points is None


def with_last_axis_norms(module: nn.Module) -> nn.Module:
    """Replace every `LayerNorm2d` in `module` by a `LastAxisNorm`; returns `module`."""
    for name, child in list(module.named_children()):
        if isinstance(child, LayerNorm2d):
            setattr(module, name, LastAxisNorm(child))
        else:
            with_last_axis_norms(child)
    return module
