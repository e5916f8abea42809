"""CLIP's text encoder and ViT image encoder (Radford et al. 2021).

Parameter names are those of the published OpenAI and OpenCLIP state dicts. Texts and images come in
batches of any size; everything else is static, so that both towers export as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Added to the attention scores of later tokens: its exp is 0 in FP32, and FP16 can represent it.
_MASKED = -1e4


@dataclass(frozen=True)
class Tower:
    """Sizes of one transformer; `activation` is "quick_gelu" (x sigmoid(1.702 x)) or "gelu"."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of a CLIP model; a text's features are read at the position of its `end_of_text` token."""

    embed_dim: int
    text: Tower
    context_length: int
    vocab_size: int
    end_of_text: int
    vision: Tower
    image_size: int
    patch_size: int


class Attention(nn.Module):
    """Multi-head self-attention, with queries, keys and values in one matmul."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def _heads(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        return x.reshape(n, tokens, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (self._heads(part) for part in projected.chunk(3, dim=-1))
        # Scaled before the matmul, so that the scores stay small in FP16.
        scores = (q / math.sqrt(q.shape[3])) @ k.transpose(2, 3)
        if mask is not None:
            scores = scores + mask
        return self.out_proj((torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.c_fc = nn.Linear(tower.width, tower.mlp_width)
        self.c_proj = nn.Linear(tower.mlp_width, tower.width)
        self.quick = tower.activation == "quick_gelu"

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        return self.c_proj(x * torch.sigmoid(1.702 * x) if self.quick else F.gelu(x))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(tower.width, tower.norm_eps)
        self.attn = Attention(tower.width, tower.heads)
        self.ln_2 = nn.LayerNorm(tower.width, tower.norm_eps)
        self.mlp = Mlp(tower)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """The blocks of a tower."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(tower) for _ in range(tower.layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class VisionTransformer(nn.Module):
    """Images (N, 3, S, S), normalised RGB -> features (N, embed_dim), not normalised."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        tower, patch = config.vision, config.patch_size
        tokens = (config.image_size // patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, tower.width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(tower.width))
        self.positional_embedding = nn.Parameter(torch.empty(tokens, tower.width))
        self.ln_pre = nn.LayerNorm(tower.width, tower.norm_eps)
        self.transformer = Transformer(tower)
        self.ln_post = nn.LayerNorm(tower.width, tower.norm_eps)
        self.proj = nn.Parameter(torch.empty(tower.width, config.embed_dim))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        x = torch.cat([first, patches], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj


class ClipModel(nn.Module):
    """Text and image encoder, whose features are compared by cosine similarity."""

    mask: Tensor
    earlier: Tensor

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        tower, length = config.text, config.context_length
        self.config = config
        self.visual = VisionTransformer(config)
        self.token_embedding = nn.Embedding(config.vocab_size, tower.width)
        self.positional_embedding = nn.Parameter(torch.empty(length, tower.width))
        self.transformer = Transformer(tower)
        self.ln_final = nn.LayerNorm(tower.width, tower.norm_eps)
        self.text_projection = nn.Parameter(torch.empty(tower.width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.empty(()))
        later = torch.ones(length, length).triu(1)
        self.register_buffer("mask", _MASKED * later, persistent=False)
        self.register_buffer("earlier", later, persistent=False)

    def encode_image(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S), normalised RGB -> features (N, embed_dim), not normalised."""
        return self.visual(images)

    def encode_text(self, input_ids: Tensor) -> Tensor:
        """Token ids (T, context_length), each row with an end of text -> features (T, embed_dim).

        Features are read at the first end of text. Attention is causal, so later tokens change nothing.
        """
        x = self.token_embedding(input_ids) + self.positional_embedding
        x = self.ln_final(self.transformer(x, self.mask))
        ends = (input_ids == self.config.end_of_text).to(x.dtype)
        first = ends * (ends @ self.earlier == 0).to(x.dtype)
        return (first[:, None] @ x)[:, 0] @ self.text_projection


class TextEncoder(nn.Module):
    """`ClipModel.encode_text` as a module, for export."""

    def __init__(self, clip: ClipModel) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.clip.encode_text(input_ids)
