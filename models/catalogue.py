"""Every model sam-edge knows, as data: family, sizes, preprocessing, prompt rules, checkpoints.

Needs nothing but the standard library, so that `sam-edge models` runs where torch does not. Adding a
model is one entry in `CATALOGUE` and, for a new kind of encoder, one class here and one file in
`export/reference/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class VitEncoder:
    """The plain ViT with windowed and global attention of SAM (Li et al. 2022, Kirillov et al. 2023).

    `global_attn_indexes` are the blocks that attend to the whole image; the others attend within
    windows of `window_size` x `window_size` tokens.
    """

    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    patch_size: int = 16
    window_size: int = 14
    mlp_ratio: int = 4


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


@dataclass(frozen=True)
class Decoder:
    """Widths of the prompt encoder and the two-way mask decoder."""

    dim: int = 256
    depth: int = 2
    num_heads: int = 8
    mlp_dim: int = 2048
    iou_head_hidden_dim: int = 256
    mask_in_chans: int = 16


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the encoder's input: RGB, 0 to 255, resized, normalised, padded.

    `resize` is "longest_side" (then padded on the right and at the bottom) or "stretch"; with `antialias` it
    is Pillow's bilinear on uint8, without it PyTorch's `interpolate` on floats.
    """

    resize: str = "longest_side"
    antialias: bool = True
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    pad_value: float = 0.0


@dataclass(frozen=True)
class PromptRules:
    """How prompts are given to the decoder.

    `padding_point` says when a padding point (0, 0) with the label -1 is appended: "without_box" or
    "always". With `num_points`, prompts are filled up with such points to that many, and may have no more.
    `coordinate_size` is the side of the square that coordinates are pixels of, where that is not the
    encoder's input.
    """

    padding_point: str = "without_box"
    num_points: int | None = None
    coordinate_size: int | None = None


@dataclass(frozen=True)
class Embedding:
    """An output of the encoder beside `image_embeddings` that the decoder reads: (1, channels, side, side),
    `side` being `scale` times that of `image_embeddings`."""

    name: str
    channels: int
    scale: int


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint file. `sha256_by` says who recorded the hash."""

    file: str
    bytes: int | None
    sha256: str | None
    source: str
    license: str
    sha256_by: str = "third party"


@dataclass(frozen=True)
class Model:
    """One model: everything the exporter, the manifest and the tables need to know of it."""

    name: str
    family: str
    parameters: int
    image_size: int
    encoder: VitEncoder | TinyEncoder
    checkpoint: Checkpoint
    decoder: Decoder = field(default_factory=Decoder)
    preprocess: Preprocess = field(default_factory=Preprocess)
    prompt: PromptRules = field(default_factory=PromptRules)
    stride: int = 16
    extra_embeddings: tuple[Embedding, ...] = ()
    mask_threshold: float = 0.0
    # The decoder's masks; those from `first_multimask` on are for ambiguous prompts, one before for others.
    mask_count: int = 4
    first_multimask: int = 1

    @property
    def embedding_side(self) -> int:
        """Tokens along one side of the image embeddings."""
        return self.image_size // self.stride

    @property
    def coordinate_size(self) -> int:
        """The side of the square that the decoder's point coordinates are pixels of."""
        return self.prompt.coordinate_size or self.image_size

    @property
    def embedding_names(self) -> tuple[str, ...]:
        """The encoder's outputs."""
        return ("image_embeddings", *(extra.name for extra in self.extra_embeddings))


_SAM_SOURCE = "https://github.com/facebookresearch/segment-anything#model-checkpoints"

CATALOGUE: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            name="sam_edge_tiny",
            family="sam_edge_tiny",
            parameters=3_266_704,
            image_size=256,
            encoder=TinyEncoder(),
            decoder=Decoder(dim=128, num_heads=8, mlp_dim=768, iou_head_hidden_dim=128),
            checkpoint=Checkpoint(
                file="sam_edge_tiny.safetensors",
                bytes=6_562_328,
                sha256="8947ac413114e3c41158b83fceb167269b5790f654220a993119be35a1b6e976",
                source="embedded",
                license="Apache-2.0",
                sha256_by="us",
            ),
        ),
        Model(
            name="vit_b",
            family="sam",
            parameters=93_735_472,
            image_size=1024,
            encoder=VitEncoder(768, 12, 12, (2, 5, 8, 11)),
            checkpoint=Checkpoint(
                file="sam_vit_b_01ec64.pth",
                bytes=375_042_383,
                sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
                source=_SAM_SOURCE,
                license="Apache-2.0",
            ),
        ),
        Model(
            name="vit_l",
            family="sam",
            parameters=312_342_832,
            image_size=1024,
            encoder=VitEncoder(1024, 24, 16, (5, 11, 17, 23)),
            checkpoint=Checkpoint(
                file="sam_vit_l_0b3195.pth",
                bytes=None,
                sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
                source=_SAM_SOURCE,
                license="Apache-2.0",
            ),
        ),
        Model(
            name="vit_h",
            family="sam",
            parameters=641_090_608,
            image_size=1024,
            encoder=VitEncoder(1280, 32, 16, (7, 15, 23, 31)),
            checkpoint=Checkpoint(
                file="sam_vit_h_4b8939.pth",
                bytes=2_564_550_879,
                sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
                source=_SAM_SOURCE,
                license="Apache-2.0",
            ),
        ),
    )
}

DEFAULT_MODEL = "sam_edge_tiny"


def rows() -> list[dict[str, Any]]:
    """The catalogue as plain rows, for `sam-edge models` and models/README.md."""
    return [
        {
            "name": model.name,
            "family": model.family,
            "parameters": model.parameters,
            "input_size": model.image_size,
            "file": model.checkpoint.file,
            "bytes": model.checkpoint.bytes,
            "sha256": model.checkpoint.sha256,
            "sha256_by": model.checkpoint.sha256_by,
            "license": model.checkpoint.license,
            "source": model.checkpoint.source,
            "embedded": model.checkpoint.source == "embedded",
        }
        for model in CATALOGUE.values()
    ]
