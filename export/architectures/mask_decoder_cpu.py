"""Lowering of the mask decoder and prompt encoder for CPUs, composed of the blocks of `optimize.decoder`.

Every family's cross-attention is reassociated. SAM's own mask decoder is also upscaled on rows of pixels; its
masks are then a function of two values, which lets a runtime score prompts first and draw only the masks that
it keeps.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ..optimize.decoder import Hypernetworks, ImageToTokenAttention, TokenToImageAttention, Upscaler
from .mask_decoder import MaskDecoder
from .model import SamModel
from .prompt_encoder import PromptEncoder


class MatmulPromptEncoder(PromptEncoder):
    """`PromptEncoder` whose last convolution of mask prompts is a matmul.

    The convolution's bias and `no_mask_embed` are one more column of its weights, so that the choice between
    them is made on the prompt's few channels.
    """

    def embed_masks(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Low-resolution logits (N, 1, 4h, 4w), flags (N,) 0 or 1 -> (N, embed_dim, h, w)."""
        layers: Any = self.mask_downscaling
        last, has_mask = layers[-1], has_mask_input[:, None, None]
        downscaled = layers[:-1](mask_input)
        values = downscaled.flatten(2) * has_mask
        values = torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
        added = has_mask * last.bias[:, None] + (1 - has_mask) * self.no_mask_embed.weight[:, :, None]
        weights = torch.cat([last.weight.flatten(1).expand(added.shape[0], -1, -1), added], dim=2)
        return (weights @ values).reshape(-1, last.out_channels, *downscaled.shape[2:])


class RowMaskDecoder(MaskDecoder):
    """`MaskDecoder` whose masks are computed by an `Upscaler`; for SAM's own decoder only."""

    def forward(  # type: ignore[override]
        self, image_embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return masks and scores as `MaskDecoder.forward` does, and the two inputs of the `Upscaler`."""
        queries, image_tokens = self.transform(image_embeddings, image_pe, sparse, dense)
        networks: Any = self.output_hypernetworks_mlps
        mask_weights = networks(queries[:, 1 : 1 + self.num_mask_tokens])
        masks = self.output_upscaling(image_tokens, mask_weights)
        return masks, self.iou_prediction_head(queries[:, 0]), image_tokens, mask_weights


def reassociate(sam: SamModel) -> SamModel:
    """Copy `sam` with its decoder reassociated, for inference only: the copy shares tensors with `sam`.

    Where `has_stages`, the copy's `decode` also returns `image_tokens` and `mask_weights`.
    """
    copied = copy.copy(sam)
    copied._modules = dict(sam._modules)
    decoder = copy.deepcopy(sam.mask_decoder)
    transformer: Any = decoder.transformer
    for layer in transformer.layers:
        layer.cross_attn_token_to_image = TokenToImageAttention(layer.cross_attn_token_to_image)
        layer.cross_attn_image_to_token = ImageToTokenAttention(layer.cross_attn_image_to_token)
    transformer.final_attn_token_to_image = TokenToImageAttention(transformer.final_attn_token_to_image)
    if type(decoder) is MaskDecoder:
        _, width = sam.prompt_encoder.image_embedding_size
        decoder.output_upscaling = Upscaler(decoder.output_upscaling, width)  # type: ignore[assignment]
        networks = Hypernetworks(decoder.output_hypernetworks_mlps)
        decoder.output_hypernetworks_mlps = networks  # type: ignore[assignment]
        decoder.__class__ = RowMaskDecoder
        copied.prompt_encoder = copy.copy(sam.prompt_encoder)
        copied.prompt_encoder.__class__ = MatmulPromptEncoder
    copied.mask_decoder = decoder
    return copied.requires_grad_(False)


def has_stages(sam: SamModel) -> bool:
    """Whether a reassociated model computes scores before masks, so that masks can be left out."""
    return type(sam.mask_decoder) is RowMaskDecoder and sam.scores == "predicted_iou"
