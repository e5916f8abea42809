"""SAM's prompt encoder: points, boxes and masks to embeddings (Kirillov et al. 2023, appendix A).

Batched as the published ONNX decoder is: the number of prompts N and of points K are axes, boxes are two
points with the labels 2 and 3, and the label -1 marks padding. Parameter names are those of the published
checkpoints.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .layers import LayerNorm2d


class RandomFourierPositions(nn.Module):
    """Positional encoding with random Fourier features (Tancik et al. 2020)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, coords: Tensor) -> Tensor:
        """Coordinates (..., 2) x, y in [0, 1] -> (..., 2 * features)."""
        angles = 2 * math.pi * ((2 * coords - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)

    def grid(self, h: int, w: int) -> Tensor:
        """Positional encoding of a grid of (h x w) tokens, (1, h * w, 2 * features)."""
        matrix = self.positional_encoding_gaussian_matrix
        y = (torch.arange(h, dtype=matrix.dtype, device=matrix.device) + 0.5) / h
        x = (torch.arange(w, dtype=matrix.dtype, device=matrix.device) + 0.5) / w
        grid = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], dim=-1)
        return self(grid).reshape(1, h * w, -1)


class PromptEncoder(nn.Module):
    """Sparse (points, boxes) and dense (mask) prompt embeddings.

    Args:
        embed_dim: channels of the image embeddings.
        image_embedding_size: (h, w) of the image embeddings.
        input_image_size: (H, W) in pixels of the padded encoder input.
        mask_in_chans: channels of the widest hidden layer of the mask downscaling.
    """

    def __init__(
        self,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int,
    ) -> None:
        super().__init__()
        self.image_embedding_size = image_embedding_size
        self.input_image_size = input_image_size
        self.pe_layer = RandomFourierPositions(embed_dim // 2)
        # Indexed by label: background, foreground, box top-left, box bottom-right.
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.no_mask_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in_chans // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans // 4),
            nn.GELU(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans),
            nn.GELU(),
            nn.Conv2d(mask_in_chans, embed_dim, kernel_size=1),
        )

    def dense_positions(self) -> Tensor:
        """Positional encoding of the image tokens, (1, h * w, embed_dim)."""
        return self.pe_layer.grid(*self.image_embedding_size)

    def embed_points(self, point_coords: Tensor, point_labels: Tensor) -> Tensor:
        """Coordinates (N, K, 2) in pixels of the padded input, labels (N, K) -> (N, K, embed_dim)."""
        height, width = self.input_image_size
        size = torch.tensor([width, height], dtype=point_coords.dtype, device=point_coords.device)
        embedding = self.pe_layer((point_coords + 0.5) / size)
        labels = point_labels[..., None]
        is_padding = (labels == -1).to(embedding.dtype)
        embedding = embedding * (1 - is_padding) + self.not_a_point_embed.weight * is_padding
        weights = torch.cat([p.weight for p in self.point_embeddings], dim=0)  # type: ignore[misc]
        for label in range(4):
            is_label = (labels == label).to(embedding.dtype)
            embedding = embedding + weights[label] * is_label
        return embedding

    def embed_masks(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Low-resolution logits (N, 1, 4h, 4w), flags (N,) 0 or 1 -> (N, embed_dim, h, w)."""
        has_mask = has_mask_input[:, None, None, None]
        no_mask = self.no_mask_embed.weight[:, :, None, None]
        return has_mask * self.mask_downscaling(mask_input) + (1 - has_mask) * no_mask
