"""Lowering for Qualcomm's Hexagon NPU: static shapes, absent points, LayerNorm over the last axis.

- The NPU's compiler supports static shapes only, so the decoder reads one prompt of `MAX_POINTS` points. More
  padding points would change its masks, so unused points have a label of their own and are masked in
  attention: the masks are those of the points given.
- LayerNorm2d becomes a LayerNorm over the last axis, for which the NPU has an operator. The published mean of
  squares overflows FP16 for values beyond 255, which costs the embedded model 2% of its embedding.
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
# Added to the attention scores of absent points: as good as minus infinity in a softmax, and small enough to
# leave 16-bit activations enough precision for the other scores.
ABSENT_POINT_BIAS = -100.0


class LastAxisNorm(nn.Module):
    """`LayerNorm2d` computed as a LayerNorm over the last axis."""

    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        last = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return last.permute(0, 3, 1, 2)


class _Scores:
    """The bias of the attention scores during a run, (1, 1, 1, tokens)."""

    bias: Tensor | None = None


class BiasedAttention(nn.Module):
    """`Attention` with a bias added to the scores of each key."""

    def __init__(self, attention: Attention, scores: _Scores) -> None:
        super().__init__()
        self.attention, self.scores = attention, scores

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(N, T, dim) queries, (N, P, dim) keys and values -> (N, T, dim)."""
        inner, bias = self.attention, self.scores.bias
        assert bias is not None
        q, k, v = (inner._heads(f(x)) for f, x in ((inner.q_proj, q), (inner.k_proj, k), (inner.v_proj, v)))
        scores = (q @ k.transpose(2, 3)) / math.sqrt(q.shape[3])
        weights = torch.softmax(scores + bias, dim=-1)
        return inner.out_proj((weights @ v).transpose(1, 2).flatten(2))


class FixedPointsDecoder(nn.Module):
    """`PromptAndMaskDecoder` for one prompt that ignores points with the label `ABSENT`."""

    def __init__(self, sam: SamModel) -> None:
        super().__init__()
        self.inner = PromptAndMaskDecoder(copy.deepcopy(sam))
        self.scores = _Scores()
        layer: Any
        for layer in self.inner.sam.mask_decoder.transformer.layers:
            # The attentions in which tokens are keys.
            layer.self_attn = BiasedAttention(layer.self_attn, self.scores)
            layer.cross_attn_image_to_token = BiasedAttention(layer.cross_attn_image_to_token, self.scores)

    def forward(
        self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        """Decode one prompt as `SamModel.decode` does."""
        outputs = self.inner.sam.mask_decoder.output_tokens().shape[0]
        absent = (point_labels == ABSENT).to(point_coords.dtype)
        bias = torch.cat([absent.new_zeros(1, outputs), absent * ABSENT_POINT_BIAS], dim=1)
        self.scores.bias = bias[:, None, None]
        try:
            return self.inner(image_embeddings, point_coords, point_labels, *rest)
        finally:
            self.scores.bias = None


def has_absent_points(model: Model) -> bool:
    """Whether the decoder reads the label `ABSENT`; with a fixed number of points it reads padding points."""
    return model.prompt.num_points is None


def with_last_axis_norms(module: nn.Module) -> nn.Module:
    """Replace every `LayerNorm2d` in `module` by a `LastAxisNorm`, in place, and return `module`."""
    for name, child in list(module.named_children()):
        if isinstance(child, LayerNorm2d):
            setattr(module, name, LastAxisNorm(child))
        else:
            with_last_axis_norms(child)
    return module
