"""What image encoders are made of, as data: one description for each kind.

`size_step` is what the side of an input has to be a multiple of, in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class VitEncoder:
    """The plain ViT with windowed and global attention of SAM (Li et al. 2022, Kirillov et al. 2023).

    `global_attn_indexes` are the blocks that attend to the whole image; the others attend within
    windows of `window_size` x `window_size` tokens. `mlp_dim` is the MLPs' width where it is no multiple of
    `embed_dim`.
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
        """A patch."""
        return self.patch_size


@dataclass(frozen=True)
class TinyVitEncoder:
    """MobileSAM's TinyViT (Wu et al. 2022, Zhang et al. 2023): one entry for each stage.

    The first stage is of inverted residuals, which `expand` their channels; the others attend within windows
    of `window_sizes` x `window_sizes` tokens.
    """

    embed_dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (2, 4, 5, 10)
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)
    mlp_ratio: int = 4
    expand: int = 4

    @property
    def size_step(self) -> int:
        """Four halvings; windows are padded."""
        return 16


@dataclass(frozen=True)
class HieraEncoder:
    """SAM 2's Hiera (Ryali et al. 2023, Ravi et al. 2024): `stages` are numbers of blocks.

    The width and the heads double from stage to stage. `global_att_blocks` attend to the whole image, the
    others within windows of `window_spec` tokens, one entry a stage. `background` is the side of the table of
    positions that is stretched over the image.
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
        """Patches of 4 pixels, halved at each stage; and the table of a window repeats in whole numbers."""
        return 4 * math.lcm(self.window_spec[0], 2 ** (len(self.stages) - 1))


@dataclass(frozen=True)
class RepVitEncoder:
    """EdgeSAM's RepViT M1 (Wang et al. 2024, Zhou et al. 2023): one entry for each stage.

    `repeats` are the blocks behind the one that halves the sides.
    """

    channels: tuple[int, ...] = (48, 96, 192, 384)
    repeats: tuple[int, ...] = (3, 3, 15, 2)

    @property
    def size_step(self) -> int:
        """The stem's two halvings and one at each stage but the first."""
        return 4 * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class RepVitPyramidEncoder(RepVitEncoder):
    """The same in front of SAM 2's feature pyramid, as EdgeTAM has it (Zhou et al. 2025)."""


@dataclass(frozen=True)
class PlainVitEncoder:
    """EfficientSAM's ViT, with global attention only (Dosovitskiy et al. 2021, Xiong et al. 2023).

    Its position embeddings are of `position_side` x `position_side` patches.
    """

    embed_dim: int
    num_heads: int
    depth: int = 12
    patch_size: int = 16
    mlp_ratio: int = 4
    position_side: int = 14

    @property
    def size_step(self) -> int:
        """A patch."""
        return self.patch_size


@dataclass(frozen=True)
class Stage:
    """One stage of an inverted-residual trunk."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


@dataclass(frozen=True)
class TinyEncoder:
    """EfficientNet-Lite0 up to stride 16, three scales folded together, three transformer blocks.

    `fold_stages` index `stages`: their outputs (strides 4, 8 and 16) are folded to stride 16.
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
        """The stride of the coarsest stage, to which the others are folded."""
        return 16


@dataclass(frozen=True)
class EfficientVitStage:
    """A block that halves the resolution, then `depth` of kind `block`: "fmb" (fused inverted residual), "mb"
    (inverted residual) or "att" (linear attention, its tokens gathered over `kernel` x `kernel`)."""

    block: str
    width: int
    depth: int
    expand: int
    kernel: int = 5


@dataclass(frozen=True)
class EfficientVitEncoder:
    """EfficientViT's large backbone and EfficientViT-SAM's neck (Cai et al. 2023, Zhang et al. 2024).

    The stem has stride 2, the embeddings the size of the third stage from the end.
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
        """The stem's halving and one at each stage."""
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
