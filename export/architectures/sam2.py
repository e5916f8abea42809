"""SAM 2's mask decoder for images (Ravi et al. 2024): SAM's, with finer features of the encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam_edge.models.catalogue import Decoder

from .mask_decoder import MaskDecoder

# As in the published image predictor: a mask is stable if its stability score is at least 49 / 50.
STABILITY_DELTA = 0.05
STABLE, OF = 49, 50


class Sam2MaskDecoder(MaskDecoder):
    """SAM's decoder with dynamic multimask selection in mask 0.

    Index 0 is the mask that the published predictor returns for `multimask_output=False`, 1 to 3 are those
    for `True`. The object score's token takes part in attention; the score is for video and is not computed.
    """

    def __init__(self, config: Decoder) -> None:
        super().__init__(
            config.dim, config.depth, config.num_heads, config.mlp_dim, config.iou_head_hidden_dim
        )
        self.obj_score_token = nn.Embedding(1, config.dim)

    def output_tokens(self) -> Tensor:
        # The published code has it first; attention does not depend on the order.
        return torch.cat([super().output_tokens(), self.obj_score_token.weight], dim=0)

    def upscale(self, image: Tensor, *features: Tensor) -> Tensor:
        """Upscale as SAM does, adding the features with stride 8 and stride 4."""
        quarter, eighth = features
        first, norm, act, second, last_act = self.output_upscaling
        return last_act(second(act(norm(first(image) + eighth))) + quarter)

    def forward(  # type: ignore[override]
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode as `MaskDecoder.forward` does, with two more inputs.

        Args:
            image_embeddings, image_pe, sparse, dense: as in `MaskDecoder.forward`.
            high_res_feats_0: (1 or N, dim / 8, 4h, 4w).
            high_res_feats_1: (1 or N, dim / 4, 2h, 2w).
        """
        features = high_res_feats_0, high_res_feats_1
        queries, upscaled = self.attend(image_embeddings, image_pe, sparse, dense, *features)
        masks, scores = self.masks(queries, upscaled), torch.sigmoid(self.iou_prediction_head(queries[:, 0]))
        mask, score = single_mask(masks, scores)
        return torch.cat([mask, masks[:, 1:]], dim=1), torch.cat([score, scores[:, 1:]], dim=1)


def single_mask(masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Select mask 0 where it is stable, else the mask of the others with the best score.

    Args:
        masks: (N, 4, h, w) logits.
        scores: (N, 4).

    Returns:
        (N, 1, h, w) and (N, 1).
    """
    mask, score = masks[:, 1:2], scores[:, 1:2]
    for index in range(2, masks.shape[1]):
        better = scores[:, index : index + 1] > score
        mask = torch.where(better[:, :, None, None], masks[:, index : index + 1], mask)
        score = torch.where(better, scores[:, index : index + 1], score)
    first = masks[:, :1]
    # Integers and means of means: exact, and without overflow in FP16.
    surely, perhaps = (first > STABILITY_DELTA).float(), (first > -STABILITY_DELTA).float()
    stable = (OF * surely - STABLE * perhaps).mean(3).mean(2) >= 0
    return torch.where(stable[:, :, None, None], first, mask), torch.where(stable, scores[:, :1], score)
