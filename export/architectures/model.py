"""Build a whole reference model from its catalogue entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sam_edge.models.catalogue import Model
from sam_edge.models.encoders import (
    EfficientVitEncoder,
    HieraEncoder,
    PlainVitEncoder,
    RepVitEncoder,
    RepVitPyramidEncoder,
    TinyEncoder,
    TinyVitEncoder,
    VitEncoder,
)

from .efficient_sam import EfficientSamMaskDecoder, EfficientSamPromptEncoder
from .image_encoder_efficientvit import ImageEncoderEfficientViT
from .image_encoder_hiera import ImageEncoderHiera
from .image_encoder_plain_vit import ImageEncoderPlainViT
from .image_encoder_repvit import ImageEncoderRepViT, ImageEncoderRepVitPyramid
from .image_encoder_tiny import ImageEncoderTiny
from .image_encoder_tiny_vit import ImageEncoderTinyViT
from .image_encoder_vit import ImageEncoderViT
from .mask_decoder import MaskDecoder
from .prompt_encoder import PromptEncoder
from .sam2 import Sam2MaskDecoder
from .sam_hq import HqImageEncoder, HqMaskDecoder

# Encoder config in the catalogue -> encoder class, called with the config, the side of the input in pixels
# and the number of channels of the embeddings.
ENCODERS: dict[type, Callable[[Any, int, int], nn.Module]] = {
    EfficientVitEncoder: ImageEncoderEfficientViT,
    HieraEncoder: ImageEncoderHiera,
    PlainVitEncoder: ImageEncoderPlainViT,
    RepVitEncoder: ImageEncoderRepViT,
    RepVitPyramidEncoder: ImageEncoderRepVitPyramid,
    TinyEncoder: ImageEncoderTiny,
    TinyVitEncoder: ImageEncoderTinyViT,
    VitEncoder: ImageEncoderViT,
}


def stability(masks: Tensor, threshold: float, offset: float = 1.0) -> Tensor:
    """Stability score (Kirillov et al. 2023): (N, M, h, w) logits -> (N, M).

    The IoU of each mask at `threshold + offset` and at `threshold - offset`; 0 where both are empty.
    """
    # Means of means: sums of pixels would overflow in FP16.
    inner, outer = ((masks > threshold + by).to(masks.dtype).mean(3).mean(2) for by in (offset, -offset))
    return inner / outer.clamp_min(1 / (masks.shape[2] * masks.shape[3]))


class SamModel(nn.Module):
    """Image encoder, prompt encoder and mask decoder (Kirillov et al. 2023).

    Its `state_dict` has the published names. Families with other decoders are subclasses, in `FAMILIES`.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.scores, self.mask_threshold = model.scores, model.mask_threshold
        decoder, side = model.decoder, model.embedding_side
        self.image_encoder = ENCODERS[type(model.encoder)](model.encoder, model.image_size, decoder.dim)
        self.prompt_encoder = PromptEncoder(
            decoder.dim, (side, side), (model.coordinate_size, model.coordinate_size), decoder.mask_in_chans
        )
        self.mask_decoder = MaskDecoder(
            decoder.dim,
            decoder.depth,
            decoder.num_heads,
            decoder.mlp_dim,
            decoder.iou_head_hidden_dim,
            decoder.norm_eps,
        )

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Embed images, as the exported encoder does.

        Args:
            images: (B, 3, S, S) normalised RGB.

        Returns:
            `image_embeddings` (B, dim, h, w) and the model's extra embeddings, in the catalogue's order.
        """
        found = self.image_encoder(images)
        return found if isinstance(found, tuple) else (found,)

    def decode(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        *extra_embeddings: Tensor,
        text_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Decode N prompts on one image, as the exported decoder does.

        Args:
            image_embeddings: (1, dim, h, w), or (N, dim, h, w) for one image per prompt.
            point_coords: (N, K, 2) x, y in pixels of the padded input, or of the model's coordinate space.
            point_labels: (N, K): 1 foreground, 0 background, 2 and 3 box corners, -1 padding.
            mask_input: (N, 1, 4h, 4w) logits of earlier masks, or (1, 1, 4h, 4w) for all prompts; ignored
                where `has_mask_input` is 0.
            has_mask_input: (N,) or (1,): 1 where the prompt has a mask, else 0.
            extra_embeddings: the encoder's other outputs, each (1, C, h', w').
            text_embeddings: (N, T, dim) further tokens of the prompts (Kirillov et al. 2023, section 3 and
                appendix D.5: a text's embedding is a sparse prompt).

        Returns:
            low_res_masks (N, 4, 4h, 4w) logits, iou_predictions (N, 4), and any further outputs of the mask
            decoder.
        """
        sparse = self.prompt_encoder.embed_points(point_coords, point_labels)
        if text_embeddings is not None:
            sparse = torch.cat([sparse, text_embeddings], dim=1)
        dense = self.prompt_encoder.embed_masks(mask_input, has_mask_input)
        positions = self.prompt_encoder.dense_positions()
        masks, scores, *rest = self.mask_decoder(
            image_embeddings, positions, sparse, dense, *extra_embeddings
        )
        if self.scores == "stability":
            scores = stability(masks, self.mask_threshold)
        return masks, scores, *rest


class SamHq(SamModel):
    """SAM-HQ (Ke et al. 2023): see `sam_hq`."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.image_encoder = HqImageEncoder(self.image_encoder, model.decoder.dim)
        self.mask_decoder = HqMaskDecoder(model.decoder)


class Sam2(SamModel):
    """SAM 2, SAM 2.1 (Ravi et al. 2024) and EdgeTAM (Zhou et al. 2025) on images: see `pyramid` and `sam2`.

    2 and 2.1 differ in their video memory only.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.mask_decoder = Sam2MaskDecoder(model.decoder)


class EfficientSam(SamModel):
    """EfficientSAM (Xiong et al. 2023): see `efficient_sam`."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        dim = model.decoder.dim
        self.prompt_encoder = EfficientSamPromptEncoder(  # type: ignore[assignment]
            dim, model.embedding_side, model.image_size
        )
        self.mask_decoder = EfficientSamMaskDecoder(model.decoder)


class PromptAndMaskDecoder(nn.Module):
    """`SamModel.decode` as a module, for export."""

    def __init__(self, sam: SamModel) -> None:
        super().__init__()
        self.sam = sam

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        *extra_embeddings: Tensor,
    ) -> tuple[Tensor, ...]:
        return self.sam.decode(
            image_embeddings, point_coords, point_labels, mask_input, has_mask_input, *extra_embeddings
        )


class TextAndMaskDecoder(nn.Module):
    """`PromptAndMaskDecoder` with the additional input `text_embeddings` after the published ones."""

    def __init__(self, sam: SamModel) -> None:
        super().__init__()
        self.sam = sam

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        text_embeddings: Tensor,
        *extra_embeddings: Tensor,
    ) -> tuple[Tensor, ...]:
        prompts = point_coords, point_labels, mask_input, has_mask_input
        return self.sam.decode(image_embeddings, *prompts, *extra_embeddings, text_embeddings=text_embeddings)


# Families whose modules or state_dict differ from SAM's.
FAMILIES: dict[str, type[SamModel]] = {
    "sam2": Sam2,
    "sam2.1": Sam2,
    "edgetam": Sam2,
    "efficient_sam": EfficientSam,
    "sam_hq": SamHq,
}


def build_model(model: Model) -> SamModel:
    """Build the reference model of a catalogue entry, without trained weights.

    >>> sam = build_model(CATALOGUE["mobile_sam"])
    >>> sam.load_state_dict(weights)
    """
    return FAMILIES.get(model.family, SamModel)(model)


def decoder_example(model: Model, prompts: int, points: int, texts: int | None = None) -> dict[str, Tensor]:
    """Make example inputs of the decoder, by name and in order.

    One mask input is shared by all prompts, so that its embedding is computed once per call.

    Args:
        model: the catalogue entry.
        prompts: N.
        points: K.
        texts: number of text embeddings per prompt; without it, `text_embeddings` is not an input.
    """
    side = model.embedding_side
    given = {} if texts is None else {"text_embeddings": torch.zeros(prompts, texts, model.decoder.dim)}
    return {
        "image_embeddings": torch.zeros(1, model.decoder.dim, side, side),
        "point_coords": torch.zeros(prompts, points, 2),
        "point_labels": torch.ones(prompts, points),
        "mask_input": torch.zeros(1, 1, 4 * side, 4 * side),
        "has_mask_input": torch.zeros(1),
        **given,
        **{
            e.name: torch.zeros(1, e.channels, e.scale * side, e.scale * side) for e in model.extra_embeddings
        },
    }
