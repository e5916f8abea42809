"""SAM's two-way mask decoder (Kirillov et al. 2023, appendix A).

Parameter names are those of the published checkpoints. One image's embeddings are shared by N
prompts through broadcasting: repeating them would put a Tile operator in the graph, which some NPU compilers
reject.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .layers import MLP, LayerNorm2d, MLPBlock


class Attention(nn.Module):
    """Multi-head attention; its inner width is `dim / downsample_rate`."""

    def __init__(self, dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        inner = dim // downsample_rate
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def _heads(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        return x.reshape(n, tokens, self.num_heads, width // self.num_heads).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = self._heads(self.q_proj(q))
        k = self._heads(self.k_proj(k))
        v = self._heads(self.v_proj(v))
        weights = torch.softmax((q @ k.transpose(2, 3)) / math.sqrt(q.shape[3]), dim=-1)
        out = (weights @ v).transpose(1, 2).flatten(2)
        return self.out_proj(out)


class TwoWayAttentionBlock(nn.Module):
    """Self-attention of tokens, token-to-image attention, MLP, image-to-token attention."""

    def __init__(
        self, dim: int, num_heads: int, mlp_dim: int, skip_first_layer_pe: bool, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim, norm_eps)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample_rate=2)
        self.norm2 = nn.LayerNorm(dim, norm_eps)
        self.mlp = MLPBlock(dim, mlp_dim, nn.ReLU)
        self.norm3 = nn.LayerNorm(dim, norm_eps)
        self.norm4 = nn.LayerNorm(dim, norm_eps)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample_rate=2)
        self.skip_first_layer_pe = skip_first_layer_pe

    def attend_to_tokens(self, queries: Tensor, query_pe: Tensor) -> Tensor:
        """Self-attention of the tokens, before its norm: (N, T, dim) twice -> (N, T, dim)."""
        if self.skip_first_layer_pe:
            return self.self_attn(queries, queries, queries)
        q = queries + query_pe
        return queries + self.self_attn(q, q, queries)

    def forward(
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        queries = self.norm1(self.attend_to_tokens(queries, query_pe))
        positioned_keys = keys + key_pe
        queries = queries + self.cross_attn_token_to_image(queries + query_pe, positioned_keys, keys)
        queries = self.norm2(queries)
        queries = self.norm3(queries + self.mlp(queries))
        attended = self.cross_attn_image_to_token(positioned_keys, queries + query_pe, queries)
        return queries, self.norm4(keys + attended)


class TwoWayTransformer(nn.Module):
    """The decoder's transformer: `depth` two-way blocks and a final token-to-image attention."""

    def __init__(self, depth: int, dim: int, num_heads: int, mlp_dim: int, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(dim, num_heads, mlp_dim, skip_first_layer_pe=i == 0, norm_eps=norm_eps)
            for i in range(depth)
        )
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(dim, norm_eps)

    def forward(self, tokens: Tensor, image: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Return updated tokens and image tokens.

        Args:
            tokens: (N, T, dim).
            image: (N, h * w, dim).
            image_pe: (1, h * w, dim) positional encoding of the image tokens.
        """
        queries, keys = tokens, image
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, image_pe)
        attended = self.final_attn_token_to_image(queries + tokens, keys + image_pe, keys)
        return self.norm_final_attn(queries + attended), keys


class MaskDecoder(nn.Module):
    """Four masks and their predicted IoU.

    Index 0 is the mask for unambiguous prompts, 1 to 3 are the masks for ambiguous ones.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_dim: int,
        iou_head_hidden_dim: int,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.num_mask_tokens = 4
        self.transformer = TwoWayTransformer(depth, dim, num_heads, mlp_dim, norm_eps)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(dim, dim, dim // 8, 3) for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = MLP(dim, iou_head_hidden_dim, self.num_mask_tokens, 3)

    def forward(
        self, image_embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Decode N prompts.

        Args:
            image_embeddings: (1 or N, dim, h, w).
            image_pe: (1, h * w, dim) positional encoding of the image tokens.
            sparse: (N, K, dim) point and box embeddings.
            dense: (1 or N, dim, h, w) mask embeddings; None for a model without mask prompts.

        Returns:
            low_res_masks (N, 4, 4h, 4w) logits, iou_predictions (N, 4).
        """
        queries, upscaled = self.attend(image_embeddings, image_pe, sparse, dense)
        return self.masks(queries, upscaled), self.iou_prediction_head(queries[:, 0])

    def output_tokens(self) -> Tensor:
        """Embeddings of the tokens that the outputs are read from, (T, dim)."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight], dim=0)

    def upscale(self, image: Tensor, *features: Tensor) -> Tensor:
        """Upscale the image tokens: (N, dim, h, w) -> (N, dim / 8, 4h, 4w).

        `features` are the encoder's features of finer resolution, for subclasses that add them.
        """
        return self.output_upscaling(image)

    def attend(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor | None,
        *features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Run the transformer and return tokens (N, T + K, dim) and upscaled image (N, dim / 8, 4h, 4w)."""
        _, dim, h, w = image_embeddings.shape
        queries, keys = self.transform(image_embeddings, image_pe, sparse, dense)
        return queries, self.upscale(keys.transpose(1, 2).reshape(-1, dim, h, w), *features)

    def transform(
        self, image_embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run the transformer and return tokens (N, T + K, dim) and image tokens (N, h * w, dim)."""
        tokens = torch.cat([self.output_tokens()[None].expand(sparse.shape[0], -1, -1), sparse], dim=1)
        source = image_embeddings if dense is None else image_embeddings + dense
        queries, keys = self.transformer(tokens, source.flatten(2).transpose(1, 2), image_pe)
        return queries, keys

    def masks(self, queries: Tensor, upscaled: Tensor) -> Tensor:
        """Mask logits (N, 4, 4h, 4w): the upscaled image weighted by the hypernetworks."""
        n, _, height, width = upscaled.shape
        masks = self.hypernetworks(queries) @ upscaled.flatten(2)
        return masks.reshape(n, self.num_mask_tokens, height, width)

    def hypernetworks(self, queries: Tensor) -> Tensor:
        """Weight of each channel of the upscaled image in each mask, (N, 4, dim / 8)."""
        return torch.stack(
            [mlp(queries[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
