"""An exact rewrite of the mask decoder: the same function with a fraction of the arithmetic.

In SAM's decoder a handful of tokens attends to thousands of image tokens, and these to the tokens. Most of
its time goes into projecting the image tokens. Matrix products are associative, so each of these projections
can be moved onto the few tokens; with X the image tokens, for each head:

- tokens to image, scores: q (X Wk)^T = (q Wk^T) X^T; a bias of the keys adds the same to every key's score
  and cancels in the softmax;
- tokens to image, values: A (X Wv) = (A X) Wv; a bias of the values passes through, as each row of A sums
  to 1;
- image to tokens, scores: (X Wq) k^T = X (Wq k^T);
- image to tokens, outputs: (A v) Wo = A (v Wo).

The upscaling's transposed convolutions, whose kernels are as wide as their strides, are matrix products with
the pixels shuffled behind them. Here each is two products, for the upper pixels and for the lower: a line of
pixels comes out as it stands in the mask, and only whole lines are put in order, at the end, when four masks
are left of 32 channels. What stays between is one row per pixel, which norms and products like best. The
hypernetworks of the four masks are computed at once.

A mask prompt's last convolution, of kernel 1, is a product too; its bias and `no_mask_embed` are one more
column of its weights, so that whether there is a mask is decided on the prompt's few channels.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..architectures.mask_decoder import Attention, MaskDecoder
from ..architectures.model import SamModel
from ..architectures.prompt_encoder import PromptEncoder

# Image tokens upscaled at a time, in whole lines: 2 MB of the last, widest rows of a prompt.
STEP = 1024


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """(heads * width, dim) -> (heads, width, dim)."""
    return weight.detach().reshape(heads, -1, weight.shape[1]).clone()


class FewQueries(nn.Module):
    """`Attention` of a few tokens to many."""

    keys: Tensor
    values: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads = heads = attention.num_heads
        self.q_proj = attention.q_proj
        self.out_proj = copy.deepcopy(attention.out_proj)
        self.out_proj.bias.data += attention.out_proj.weight.data @ attention.v_proj.bias.data
        keys = _by_head(attention.k_proj.weight, heads)
        self.register_buffer("keys", keys * keys.shape[1] ** -0.5)
        self.register_buffer("values", _by_head(attention.v_proj.weight, heads).transpose(1, 2).contiguous())

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(N, T, dim), (N or 1, P, dim) twice -> (N, T, dim)."""
        n, tokens, dim = q.shape
        heads = self.q_proj(q).reshape(n, tokens, self.num_heads, -1).transpose(1, 2)
        sought = (heads @ self.keys).reshape(n, self.num_heads * tokens, dim)
        weights = torch.softmax(sought @ k.transpose(1, 2), dim=-1)
        found = (weights @ v).reshape(n, self.num_heads, tokens, dim) @ self.values
        return self.out_proj(found.transpose(1, 2).flatten(2))


class FewKeys(nn.Module):
    """`Attention` of many tokens to a few."""

    queries: Tensor
    query_bias: Tensor
    outputs: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads = heads = attention.num_heads
        self.k_proj, self.v_proj, self.out_bias = (
            attention.k_proj,
            attention.v_proj,
            attention.out_proj.bias,
        )
        queries = _by_head(attention.q_proj.weight, heads)
        scale = queries.shape[1] ** -0.5
        self.register_buffer("queries", queries * scale)
        bias = attention.q_proj.bias.detach().reshape(heads, -1, 1) * scale
        self.register_buffer("query_bias", bias)
        outputs = _by_head(attention.out_proj.weight.t(), heads)
        self.register_buffer("outputs", outputs)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(N or 1, P, dim), (N, T, dim) twice -> (N, P, dim)."""
        n, tokens, dim = k.shape
        count = self.num_heads * tokens
        keys = self.k_proj(k).reshape(n, tokens, self.num_heads, -1).transpose(1, 2)
        sought = (keys @ self.queries).reshape(n, count, dim)
        bias = (keys @ self.query_bias).reshape(n, 1, count)
        scores = q @ sought.transpose(1, 2) + bias
        weights = torch.softmax(scores.reshape(n, -1, self.num_heads, tokens), dim=-1)
        values = self.v_proj(v).reshape(n, tokens, self.num_heads, -1).transpose(1, 2)
        # The weights of each head sum to 1.
        given = (values @ self.outputs + self.out_bias / self.num_heads).reshape(n, count, dim)
        return weights.reshape(n, -1, count) @ given


class Upscaler(nn.Module):
    """SAM's `output_upscaling` and its product with the masks' weights, of rows: one for each pixel.

    `width` is that of the image's tokens. Of their lines it takes any number, the upper ones say. Of `step`
    tokens at a time, whole lines of them, what is made stays in the processor's cache; all are taken at once
    where it is None.
    """

    def __init__(self, upscaling: nn.Sequential, width: int) -> None:
        super().__init__()
        self.width = width
        self.step: int | None = max(STEP // width, 1) * width
        layers: Any = upscaling
        first, self.norm, _, second, _ = layers
        self.first, self.second = LineProducts(first), LineProducts(second)

    def forward(self, image_tokens: Tensor, mask_weights: Tensor) -> Tensor:
        """(N, h * w, dim) after the transformer, (N, M, dim / 8) -> low_res_masks (N, M, 4h, 4w)."""
        some = torch.split(image_tokens, self.step, 1) if self.step else (image_tokens,)
        masks = [self._masks(tokens, mask_weights) for tokens in some]
        return torch.cat(masks, 2) if len(masks) > 1 else masks[0]

    def _masks(self, image_tokens: Tensor, mask_weights: Tensor) -> Tensor:
        """The same, of some lines."""
        n, tokens, _ = image_tokens.shape
        norm: Any = self.norm
        width = norm.weight.shape
        x = self.first(image_tokens[:, None]).reshape(n, 2, 1, 2 * tokens, *width)
        x = F.gelu(F.layer_norm(x, width, norm.weight, norm.bias, norm.eps))
        rows = F.gelu(self.second(x).reshape(n, 2, 2, 4 * tokens, -1))
        pixels = mask_weights[:, None, None] @ rows.transpose(3, 4)
        lines = pixels.reshape(n, 4, -1, tokens // self.width, 4 * self.width)
        return lines.permute(0, 2, 3, 1, 4).reshape(n, mask_weights.shape[1], -1, 4 * self.width)


class LineProducts(nn.Module):
    """A transposed convolution of kernel 2 and stride 2, as a product for each of the two lines of pixels."""

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.ConvTranspose2d) -> None:
        super().__init__()
        weight, bias = convolution.weight.detach(), convolution.bias
        assert bias is not None
        self.register_buffer("weight", weight.permute(2, 0, 3, 1).flatten(2).contiguous())
        self.register_buffer("bias", bias.detach().repeat(2))

    def forward(self, x: Tensor) -> Tensor:
        """(..., 1, P, channels) -> (..., 2, P, 2 * channels made)."""
        return x @ self.weight + self.bias


class Hypernetworks(nn.Module):
    """SAM's `output_hypernetworks_mlps`, all at once: a layer is one product with a matrix for each mask."""

    def __init__(self, networks: nn.ModuleList) -> None:
        super().__init__()
        layers: Any = zip(*(network.layers for network in networks), strict=True)
        self.count = 0
        for same in layers:
            weights = torch.stack([layer.weight.detach().t() for layer in same])
            self.register_buffer(f"weight_{self.count}", weights.contiguous())
            self.register_buffer(
                f"bias_{self.count}", torch.stack([layer.bias.detach()[None] for layer in same])
            )
            self.count += 1

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, M, dim) mask tokens -> (N, M, dim / 8)."""
        x = tokens.transpose(0, 1)
        for index in range(self.count):
            x = torch.relu(x) if index else x
            x = x @ getattr(self, f"weight_{index}") + getattr(self, f"bias_{index}")
        return x.transpose(0, 1)


class ProductPromptEncoder(PromptEncoder):
    """`PromptEncoder` whose masks are a product of two, with a column for all that is added."""

    def embed_masks(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """As `PromptEncoder.embed_masks`."""
        layers: Any = self.mask_downscaling
        last, has_mask = layers[-1], has_mask_input[:, None, None]
        downscaled = layers[:-1](mask_input)
        values = downscaled.flatten(2) * has_mask
        values = torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
        added = has_mask * last.bias[:, None] + (1 - has_mask) * self.no_mask_embed.weight[:, :, None]
        weights = torch.cat([last.weight.flatten(1).expand(added.shape[0], -1, -1), added], dim=2)
        return (weights @ values).reshape(-1, last.out_channels, *downscaled.shape[2:])


class RowMaskDecoder(MaskDecoder):
    """`MaskDecoder` whose masks are made by an `Upscaler`; for SAM's own kind, without finer features."""

    def forward(  # type: ignore[override]
        self, image_embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor | None
    ) -> tuple[Tensor, ...]:
        """As `MaskDecoder.forward`, and then what masks are made of: `Upscaler`'s inputs."""
        queries, image_tokens = self.transform(image_embeddings, image_pe, sparse, dense)
        networks: Any = self.output_hypernetworks_mlps
        mask_weights = networks(queries[:, 1 : 1 + self.num_mask_tokens])
        masks = self.output_upscaling(image_tokens, mask_weights)
        return masks, self.iou_prediction_head(queries[:, 0]), image_tokens, mask_weights


def reassociate(sam: SamModel) -> SamModel:
    """A copy of `sam` with the decoder as above; what it shares with `sam` is not to be trained.

    Where `has_stages`, its `decode` also gives out `image_tokens` and `mask_weights`.
    """
    copied = copy.copy(sam)
    copied._modules = dict(sam._modules)
    decoder = copy.deepcopy(sam.mask_decoder)
    transformer: Any = decoder.transformer
    for layer in transformer.layers:
        layer.cross_attn_token_to_image = FewQueries(layer.cross_attn_token_to_image)
        layer.cross_attn_image_to_token = FewKeys(layer.cross_attn_image_to_token)
    transformer.final_attn_token_to_image = FewQueries(transformer.final_attn_token_to_image)
    if type(decoder) is MaskDecoder:
        _, width = sam.prompt_encoder.image_embedding_size
        decoder.output_upscaling = Upscaler(decoder.output_upscaling, width)  # type: ignore[assignment]
        networks = Hypernetworks(decoder.output_hypernetworks_mlps)
        decoder.output_hypernetworks_mlps = networks  # type: ignore[assignment]
        decoder.__class__ = RowMaskDecoder
        copied.prompt_encoder = copy.copy(sam.prompt_encoder)
        copied.prompt_encoder.__class__ = ProductPromptEncoder
    copied.mask_decoder = decoder
    return copied.requires_grad_(False)


def has_stages(sam: SamModel) -> bool:
    """Whether scores come before masks in `sam`, as `reassociate` made it: masks can then be left out."""
    return type(sam.mask_decoder) is RowMaskDecoder and sam.scores == "predicted_iou"
