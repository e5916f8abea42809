"""The losses that `sam_edge_tiny` is trained with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mask_losses(logits: Tensor, target: Tensor, focal_weight: float) -> tuple[Tensor, Tensor]:
    """Focal + dice loss and true IoU of each mask, (N, M): logits (N, M, s, s), target (N, 1, L, L)."""
    logits = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
    target = target.expand_as(logits)
    p = torch.sigmoid(logits)
    ce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    agreement = p * target + (1 - p) * (1 - target)
    alpha = 0.25 * target + 0.75 * (1 - target)
    focal = (4 * alpha * (1 - agreement) ** 2 * ce).mean((2, 3))
    dice = 1 - (2 * (p * target).sum((2, 3)) + 1) / (p.sum((2, 3)) + target.sum((2, 3)) + 1)
    with torch.no_grad():
        hard, truth = logits > 0, target > 0.5
        union = (hard | truth).sum((2, 3)).clamp(min=1)
        iou = (hard & truth).sum((2, 3)) / union
    return focal_weight / 4 * focal + dice, iou


class PixelFeatures(nn.Module):
    """The auxiliary head: stride-4 features, whose similarity to those of the clicked pixel is the mask."""

    def __init__(self, dim: int, features: int = 16) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, features * 16, 1)
        self.scale = nn.Parameter(torch.tensor([8.0, -4.0]))

    def forward(self, embeddings: Tensor, points: Tensor) -> Tensor:
        """(B, dim, h, w), (B, P, 2) pixels -> (B * P, 1, 4h, 4w) logits."""
        f = F.normalize(F.pixel_shuffle(self.proj(embeddings), 4), dim=1)
        b, c, h, w = f.shape
        index = (points / 4).long().clamp(0, h - 1)
        flat = f.flatten(2)
        at = (index[..., 1] * w + index[..., 0])[:, None].expand(b, c, -1)
        similarity = flat.gather(2, at).transpose(1, 2) @ flat
        return (similarity * self.scale[0] + self.scale[1]).reshape(-1, 1, h, w)
