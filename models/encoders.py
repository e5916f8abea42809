"""Hyperparameters of image encoders: one dataclass per kind.

`size_step` is the number of pixels of which an input's side has to be a multiple.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class VitEncoder:
    """SAM's plain ViT with windowed and global attention (Li et al. 2022, Kirillov et al. 2023).

    Blocks in `global_attn_indexes` attend to the whole image, the others within windows of `window_size` x
    `window_size` tokens. `mlp_dim` is the width of the MLPs if that is not `mlp_ratio` times `embed_dim`.
    """

    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    patch_size: int = 16
    window_size: int = 14
    mlp_ratio: int = 4
    mlp_dim: int | None = None

    @property
    def size_step(self) -> int:
        """One patch."""
        return self.patch_size


@dataclass(frozen=True)
class TinyVitEncoder:
    """MobileSAM's TinyViT (Wu et al. 2022, Zhang et al. 2023); tuples have one entry per stage.

    The first stage has inverted residuals with `expand` times as many channels inside; the others attend
    within windows of `window_sizes` x `window_sizes` tokens.
    """

    embed_dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (2, 4, 5, 10)
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)
    mlp_ratio: int = 4
    expand: int = 4

    @property
    def size_step(self) -> int:
        """Total stride; windows are padded."""
        return 16


@dataclass(frozen=True)
class HieraEncoder:
    """SAM 2's Hiera (Ryali et al. 2023, Ravi et al. 2024); `stages` is the number of blocks of each stage.

    Width and heads double from stage to stage. Blocks in `global_att_blocks` attend to the whole image, the
    others within windows, `window_spec` tokens wide in each stage. `background` is the side of the position
    embedding that is interpolated to the image's size.
    """

    embed_dim: int = 96
    num_heads: int = 1
    stages: tuple[int, ...] = (1, 2, 7, 2)
    global_att_blocks: tuple[int, ...] = (5, 7, 9)
    background: int = 7
    window_spec: tuple[int, ...] = (8, 4, 14, 7)
    mlp_ratio: int = 4

    @property
    def size_step(self) -> int:
        """Total stride, and whole windows: the window's position embedding is tiled."""
        return 4 * math.lcm(self.window_spec[0], 2 ** (len(self.stages) - 1))


@dataclass(frozen=True)
class RepVitEncoder:
    """EdgeSAM's RepViT M1 (Wang et al. 2024, Zhou et al. 2023); tuples have one entry per stage.

    `repeats` counts the blocks after a stage's downsampling block.
    """

    channels: tuple[int, ...] = (48, 96, 192, 384)
    repeats: tuple[int, ...] = (3, 3, 15, 2)

    @property
    def size_step(self) -> int:
        """Total stride: 4 in the stem, 2 in each stage but the first."""
        return 4 * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class RepVitPyramidEncoder(RepVitEncoder):
    """EdgeTAM's encoder: RepViT M1 with SAM 2's feature pyramid (Zhou et al. 2025)."""


@dataclass(frozen=True)
class PlainVitEncoder:
    """EfficientSAM's ViT with global attention only (Dosovitskiy et al. 2021, Xiong et al. 2023).

    Its position embedding has `position_side` x `position_side` patches and is interpolated.
    """

    embed_dim: int
    num_heads: int
    depth: int = 12
    patch_size: int = 16
    mlp_ratio: int = 4
    position_side: int = 14

    @property
    def size_step(self) -> int:
        """One patch."""
        return self.patch_size


@dataclass(frozen=True)
class Stage:
    """One stage of inverted residuals; `expand` is the factor of channels inside a block."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


@dataclass(frozen=True)
class TinyEncoder:
    """EfficientNet-Lite0 up to stride 16, three scales merged, then `depth` transformer blocks.

    `fold_stages` are indices of `stages`: their outputs, of strides 4, 8 and 16, are brought to stride 16.
    """

    stem: int = 32
    stages: tuple[Stage, ...] = (
        Stage(1, 3, 1, 1, 16),
        Stage(2, 3, 2, 6, 24),
        Stage(2, 5, 2, 6, 40),
        Stage(3, 3, 2, 6, 80),
        Stage(3, 5, 1, 6, 112),
    )
    fold_stages: tuple[int, ...] = (1, 2, 4)
    dim: int = 192
    depth: int = 3
    num_heads: int = 6
    mlp_ratio: int = 4

    @property
    def size_step(self) -> int:
        """Total stride."""
        return 16


@dataclass(frozen=True)
class EfficientVitStage:
    """A block that halves the resolution, then `depth` blocks of one kind.

    `block` is "fmb" (fused inverted residual), "mb" (inverted residual) or "att" (linear attention over
    tokens aggregated from `kernel` x `kernel` neighbours).
    """

    block: str
    width: int
    depth: int
    expand: int
    kernel: int = 5


@dataclass(frozen=True)
class EfficientVitEncoder:
    """EfficientViT's large backbone and EfficientViT-SAM's neck (Cai et al. 2023, Zhang et al. 2024).

    The stem has stride 2. The embeddings have the resolution of the third stage from the end.
    """

    stages: tuple[EfficientVitStage, ...]
    neck_depth: int
    neck_expand: int
    stem_depth: int = 1
    stem_width: int = 32
    neck_width: int = 256
    head_width: int = 32

    @property
    def size_step(self) -> int:
        """Total stride: 2 in the stem and in each stage."""
        return 2 ** (len(self.stages) + 1)


Encoder = (
    VitEncoder
    | TinyEncoder
    | TinyVitEncoder
    | EfficientVitEncoder
    | HieraEncoder
    | RepVitEncoder
    | RepVitPyramidEncoder
    | PlainVitEncoder
)
