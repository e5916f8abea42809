"""A whole model, built from its catalogue entry."""

from __future__ import annotations

from torch import Tensor, nn

from sam_edge.models.catalogue import Model, TinyEncoder

from .image_encoder_tiny import ImageEncoderTiny
from .image_encoder_vit import ImageEncoderViT
from .mask_decoder import MaskDecoder
from .prompt_encoder import PromptEncoder


def build_image_encoder(model: Model) -> nn.Module:
    """(B, 3, S, S) normalised RGB -> (B, dim, S / 16, S / 16)."""
    if isinstance(model.encoder, TinyEncoder):
        return ImageEncoderTiny(model.encoder, model.image_size, model.decoder.dim)
    return ImageEncoderViT(model.encoder, model.image_size, model.decoder.dim)


class SamModel(nn.Module):
    """Image encoder, prompt encoder and mask decoder; `state_dict` keys are the published ones."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        decoder, side = model.decoder, model.embedding_side
        self.image_encoder = build_image_encoder(model)
        self.prompt_encoder = PromptEncoder(
            decoder.dim, (side, side), (model.image_size, model.image_size), decoder.mask_in_chans
        )
        self.mask_decoder = MaskDecoder(
            decoder.dim,
            decoder.depth,
            decoder.num_heads,
            decoder.mlp_dim,
            decoder.iou_head_hidden_dim,
        )

    def decode(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Masks for N prompts on one image: what the exported decoder computes.

        Args:
            image_embeddings: (1, dim, h, w), or (N, dim, h, w) for one image per prompt.
            point_coords: (N, K, 2) x, y in pixels of the padded encoder input.
            point_labels: (N, K): 1 foreground, 0 background, 2 and 3 box corners, -1 padding.
            mask_input: (N, 1, 4h, 4w) logits of an earlier mask; ignored where not given.
            has_mask_input: (N,) 1 where `mask_input` is given, else 0.

        Returns:
            low_res_masks (N, 4, 4h, 4w) logits and iou_predictions (N, 4).
        """
        sparse = self.prompt_encoder.embed_points(point_coords, point_labels)
        dense = self.prompt_encoder.embed_masks(mask_input, has_mask_input)
        positions = self.prompt_encoder.dense_positions()
        masks: tuple[Tensor, Tensor] = self.mask_decoder(image_embeddings, positions, sparse, dense)
        return masks


class PromptAndMaskDecoder(nn.Module):
    """`SamModel.decode` as a module of its own, to be exported."""

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
    ) -> tuple[Tensor, Tensor]:
        return self.sam.decode(image_embeddings, point_coords, point_labels, mask_input, has_mask_input)
