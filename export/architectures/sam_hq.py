"""SAM-HQ (Ke et al. 2023): one more output token, and masks from early features of the encoder.

The published decoder fuses the embeddings with the encoder's early features for every prompt, although
neither depends on the prompt: with a ViT that is half of the decoder's work. In sam-edge the encoder fuses
them and returns the result beside its embeddings, so `embedding_encoder` and `compress_vit_feat` belong to
the image encoder. Other parameter names are the published ones, with SAM's encoder as `image_encoder.trunk`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sam_edge.models.catalogue import Decoder

from .layers import MLP, LayerNorm2d
from .mask_decoder import MaskDecoder


def upscaling(channels: int, hidden: int, out: int) -> nn.Sequential:
    """Build two transposed convolutions: (N, channels, h, w) -> (N, out, 4h, 4w)."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels, hidden, kernel_size=2, stride=2),
        LayerNorm2d(hidden),
        nn.GELU(),
        nn.ConvTranspose2d(hidden, out, kernel_size=2, stride=2),
    )


class HqImageEncoder(nn.Module):
    """(B, 3, S, S) normalised RGB -> embeddings (B, dim, h, w) and HQ features (B, dim / 8, 4h, 4w).

    Args:
        trunk: an encoder with `early_channels` and `with_early_features`.
        dim: channels of the trunk's embeddings.
    """

    def __init__(self, trunk: Any, dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.compress_vit_feat = upscaling(trunk.early_channels, dim, dim // 8)
        self.embedding_encoder = upscaling(dim, dim // 4, dim // 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embeddings, early = self.trunk.with_early_features(x)
        return embeddings, self.embedding_encoder(embeddings) + self.compress_vit_feat(early)


class HqMaskDecoder(MaskDecoder):
    """SAM's four masks, each with the HQ mask added; the predicted IoU are SAM's.

    For ambiguous prompts the published predictor returns only the mask with the best score.
    """

    def __init__(self, config: Decoder) -> None:
        dim = config.dim
        super().__init__(dim, config.depth, config.num_heads, config.mlp_dim, config.iou_head_hidden_dim)
        self.hf_token = nn.Embedding(1, dim)
        self.hf_mlp = MLP(dim, dim, dim // 8, 3)
        self.embedding_maskfeature = nn.Sequential(
            nn.Conv2d(dim // 8, dim // 4, 3, padding=1),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.Conv2d(dim // 4, dim // 8, 3, padding=1),
        )

    def output_tokens(self) -> Tensor:
        return torch.cat([super().output_tokens(), self.hf_token.weight], dim=0)

    def forward(  # type: ignore[override]
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor,
        hq_features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode as `MaskDecoder.forward` does, with `hq_features`, (1 or N, dim / 8, 4h, 4w)."""
        queries, upscaled = self.attend(image_embeddings, image_pe, sparse, dense)
        n, _, height, width = upscaled.shape
        details = self.embedding_maskfeature(upscaled) + hq_features
        weights = self.hf_mlp(queries[:, 1 + self.num_mask_tokens])
        hq_mask = (weights[:, None] @ details.flatten(2)).reshape(n, 1, height, width)
        return self.masks(queries, upscaled) + hq_mask, self.iou_prediction_head(queries[:, 0])
