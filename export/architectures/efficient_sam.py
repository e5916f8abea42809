"""EfficientSAM's prompt encoder and mask decoder (Xiong et al. 2023): SAM's, with small differences.

The number of points is fixed, with padding points at fixed coordinates; there are no mask prompts, and
background points have no embedding. Norms, activations and the self-attention of tokens differ. Parameter
names are the published ones where a layer is not SAM's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_edge.models.catalogue import Decoder

from .layers import MLP, MLPBlock
from .mask_decoder import MaskDecoder, TwoWayAttentionBlock
from .prompt_encoder import RandomFourierPositions


class EfficientSamPromptEncoder(nn.Module):
    """Embed points and box corners.

    Args:
        embed_dim: channels of the image embeddings.
        embedding_side: height and width of the image embeddings.
        image_size: side of the encoder's input in pixels.
    """

    def __init__(self, embed_dim: int, embedding_side: int, image_size: int) -> None:
        super().__init__()
        self.embedding_side = embedding_side
        self.image_size = image_size
        self.pe_layer = RandomFourierPositions(embed_dim // 2)
        self.invalid_points = nn.Embedding(1, embed_dim)
        self.point_embeddings = nn.Embedding(1, embed_dim)
        self.bbox_top_left_embeddings = nn.Embedding(1, embed_dim)
        self.bbox_bottom_right_embeddings = nn.Embedding(1, embed_dim)

    def dense_positions(self) -> Tensor:
        """Positional encoding of the image tokens, (1, h * w, embed_dim)."""
        return self.pe_layer.grid(self.embedding_side, self.embedding_side)

    def embed_points(self, point_coords: Tensor, point_labels: Tensor) -> Tensor:
        """Coordinates (N, K, 2) in pixels of the encoder's input, labels (N, K) -> (N, K, embed_dim)."""
        labels = point_labels[..., None]
        # A padding point is at (-1, -1), whatever its coordinates.
        is_padding = (labels == -1).to(point_coords.dtype)
        coords = point_coords * (1 - is_padding) - is_padding
        embedding = self.pe_layer((coords + 0.5) / self.image_size)
        for label, table in (
            (-1, self.invalid_points),
            (1, self.point_embeddings),
            (2, self.bbox_top_left_embeddings),
            (3, self.bbox_bottom_right_embeddings),
        ):
            embedding = embedding + table.weight * (labels == label).to(embedding.dtype)
        return embedding

    def embed_masks(self, mask_input: Tensor, has_mask_input: Tensor) -> None:
        """Return None: the model has no mask prompts."""


class Block(TwoWayAttentionBlock):
    """SAM's block, but its self-attention always has a residual connection, around the positions too."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, skip_first_layer_pe: bool) -> None:
        super().__init__(dim, num_heads, mlp_dim, skip_first_layer_pe)
        self.mlp = MLPBlock(dim, mlp_dim)

    def attend_to_tokens(self, queries: Tensor, query_pe: Tensor) -> Tensor:
        if not self.skip_first_layer_pe:
            queries = queries + query_pe
        return queries + self.self_attn(queries, queries, queries)


class GeluMLP(MLP):
    """`MLP` with GELU instead of ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.gelu(layer(x))
        return self.layers[-1](x)


class ImageNorm(nn.Module):
    """GroupNorm with one group: normalises over all channels and positions of an image.

    Written as arithmetic, so that the exporters recognise it as a norm and keep it in FP32.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        centred = x - x.mean((1, 2, 3), keepdim=True)
        variance = (centred * centred).mean((1, 2, 3), keepdim=True)
        normed = centred / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * normed + self.bias[:, None, None]


class EfficientSamMaskDecoder(MaskDecoder):
    """SAM's decoder without its first mask, which the published model never returns."""

    def __init__(self, config: Decoder) -> None:
        dim = config.dim
        super().__init__(dim, config.depth, config.num_heads, config.mlp_dim, config.iou_head_hidden_dim)
        self.transformer.layers = nn.ModuleList(
            Block(dim, config.num_heads, config.mlp_dim, skip_first_layer_pe=i == 0)
            for i in range(config.depth)
        )
        self.output_upscaling[1] = ImageNorm(dim // 4)
        self.output_hypernetworks_mlps = nn.ModuleList(
            GeluMLP(dim, dim, dim // 8, 3) for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = GeluMLP(dim, config.iou_head_hidden_dim, self.num_mask_tokens, 3)

    def forward(
        self, image_embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Decode as `MaskDecoder.forward` does, to three masks and scores."""
        masks, scores = super().forward(image_embeddings, image_pe, sparse, dense)
        return masks[:, 1:], scores[:, 1:]
