"""Every model that can be exported, as data: family, sizes, preprocessing, prompt rules, checkpoint.

Requires only the standard library, so that `sam-edge models` runs without torch. A new model is one entry in
`CATALOGUE` and, if its encoder is new, one class in `encoders.py` and one file in `export/architectures/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .encoders import (
    EfficientVitEncoder,
    EfficientVitStage,
    Encoder,
    HieraEncoder,
    PlainVitEncoder,
    RepVitEncoder,
    RepVitPyramidEncoder,
    TinyEncoder,
    TinyVitEncoder,
    VitEncoder,
)

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Decoder:
    """Hyperparameters of SAM's prompt encoder and two-way mask decoder (Kirillov et al. 2023)."""

    dim: int = 256
    depth: int = 2
    num_heads: int = 8
    mlp_dim: int = 2048
    iou_head_hidden_dim: int = 256
    mask_in_chans: int = 16
    norm_eps: float = 1e-5


@dataclass(frozen=True)
class Preprocess:
    """How an image is prepared for the encoder.

    Attributes:
        resize: "longest_side" (then padded right and bottom) or "stretch".
        antialias: resize with Pillow's bilinear filter on uint8; otherwise with PyTorch's `interpolate` on
            floats.
        mean, std: of the channels R, G, B, on the scale 0 to 255.
        pad_value: of the padding, after normalisation.
    """

    resize: str = "longest_side"
    antialias: bool = True
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    pad_value: float = 0.0


@dataclass(frozen=True)
class PromptRules:
    """How prompts are given to the decoder.

    Attributes:
        padding_point: when a padding point, (0, 0) with label -1, is appended: "without_box" or "always".
        num_points: prompts are padded to this many points and may have no more; None for any number.
        coordinate_size: side of the square coordinate space in pixels; None for the encoder's input size.
        mask_prompt: whether the decoder uses a mask prompt.
    """

    padding_point: str = "without_box"
    num_points: int | None = None
    coordinate_size: int | None = None
    mask_prompt: bool = True


@dataclass(frozen=True)
class Embedding:
    """An encoder output that the decoder reads besides `image_embeddings`.

    Its shape is (1, channels, side, side), `side` being `scale` times that of `image_embeddings`.
    """

    name: str
    channels: int
    scale: int


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint file.

    Attributes:
        file: its name.
        bytes: its size; None if not known.
        sha256: its hash in hexadecimal; None if not known.
        source: the page that publishes it, or "embedded".
        license: of the weights.
        sha256_by: who recorded the hash.
        url: where to download it; None if there is no direct link.
    """

    file: str
    bytes: int | None
    sha256: str | None
    source: str
    license: str
    sha256_by: str = "third party"
    url: str | None = None


@dataclass(frozen=True)
class Model:
    """One model, as the exporter, the manifest and the tables use it.

    Attributes:
        name: its name on the command line.
        family: models whose checkpoints have the same layout.
        parameters: number of parameters.
        image_size: side of the encoder's square input in pixels.
        encoder, decoder: hyperparameters.
        checkpoint: the published file.
        preprocess, prompt: rules for images and prompts.
        stride: pixels of the input per image token.
        extra_embeddings: encoder outputs besides `image_embeddings`.
        mask_threshold: logits above it are mask.
        mask_count: masks that the decoder outputs.
        first_multimask: index of the first mask for ambiguous prompts; a mask before it is for other prompts.
        scores: what `iou_predictions` are: "predicted_iou", or "stability" under a shifted
            threshold.
        low_res_limit: low-resolution logits are clipped to plus and minus this; None for no limit.
        pred_iou_thresh, stability_score_thresh: defaults of everything-mode.
    """

    name: str
    family: str
    parameters: int
    image_size: int
    encoder: Encoder
    checkpoint: Checkpoint
    decoder: Decoder = field(default_factory=Decoder)
    preprocess: Preprocess = field(default_factory=Preprocess)
    prompt: PromptRules = field(default_factory=PromptRules)
    stride: int = 16
    extra_embeddings: tuple[Embedding, ...] = ()
    mask_threshold: float = 0.0
    mask_count: int = 4
    first_multimask: int = 1
    scores: str = "predicted_iou"
    low_res_limit: float | None = None
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95

    @property
    def embedding_side(self) -> int:
        """Side of the image embeddings in tokens."""
        return self.image_size // self.stride

    @property
    def coordinate_size(self) -> int:
        """Side of the square coordinate space of the decoder's prompts, in pixels."""
        return self.prompt.coordinate_size or self.image_size

    @property
    def embedding_names(self) -> tuple[str, ...]:
        """Names of the encoder's outputs."""
        return ("image_embeddings", *(extra.name for extra in self.extra_embeddings))


_SAM_SOURCE = "https://github.com/facebookresearch/segment-anything#model-checkpoints"
_SAM_HQ_SOURCE = "https://github.com/SysCV/sam-hq#model-checkpoints"

# SAM-HQ's early and final features, fused.
_HQ_FEATURES = (Embedding("hq_features", 32, 4),)

_EFFICIENTVIT_SAM_SOURCE = (
    "https://github.com/mit-han-lab/efficientvit/tree/master/applications/efficientvit_sam"
)


def _efficientvit_sam(
    name: str, parameters: int, image_size: int, encoder: EfficientVitEncoder, sha256: str | None = None
) -> Model:
    return Model(
        name=f"efficientvit_sam_{name}",
        family="efficientvit_sam",
        parameters=parameters,
        image_size=image_size,
        encoder=encoder,
        decoder=Decoder(norm_eps=1e-6),
        prompt=PromptRules(coordinate_size=1024),
        stride=image_size // 64,
        checkpoint=Checkpoint(
            file=f"efficientvit_sam_{name}.pt",
            bytes=None,
            sha256=sha256,
            source=_EFFICIENTVIT_SAM_SOURCE,
            license="Apache-2.0",
            url=f"https://huggingface.co/mit-han-lab/efficientvit-sam/resolve/main/efficientvit_sam_{name}.pt",
        ),
    )


def _efficientvit_l(depths: tuple[int, int, int, int], neck_depth: int) -> EfficientVitEncoder:
    kinds = ("fmb", 64, 4), ("fmb", 128, 4), ("mb", 256, 4), ("att", 512, 6)
    return EfficientVitEncoder(
        tuple(
            EfficientVitStage(block, width, depth, expand)
            for (block, width, expand), depth in zip(kinds, depths, strict=True)
        ),
        neck_depth,
        neck_expand=1,
    )


def _efficientvit_xl(
    stem_depth: int, depths: tuple[int, int, int, int, int], neck_depth: int
) -> EfficientVitEncoder:
    kinds = ("fmb", 64, 4), ("fmb", 128, 4), ("fmb", 256, 4), ("att", 512, 4), ("att", 1024, 6)
    return EfficientVitEncoder(
        tuple(
            EfficientVitStage(block, width, depth, expand, kernel=3)
            for (block, width, expand), depth in zip(kinds, depths, strict=True)
        ),
        neck_depth,
        neck_expand=4,
        stem_depth=stem_depth,
    )


_SAM2_SOURCE = "https://github.com/facebookresearch/sam2#model-description"
_SAM2_DAYS = {"sam2": "072824", "sam2.1": "092824"}

# Features of higher resolution for the decoder.
_HIGH_RES_FEATURES = (Embedding("high_res_feats_0", 32, 4), Embedding("high_res_feats_1", 64, 2))


def _sam2(
    family: str,
    size: str,
    parameters: int,
    encoder: HieraEncoder,
    sha256: str | None = None,
    size_in_bytes: int | None = None,
) -> Model:
    """`parameters` excludes the memory modules, which only video uses."""
    return Model(
        name=f"{family}_hiera_{size}",
        family=family,
        parameters=parameters,
        image_size=1024,
        encoder=encoder,
        prompt=PromptRules(padding_point="always"),
        preprocess=Preprocess(resize="stretch"),
        extra_embeddings=_HIGH_RES_FEATURES,
        low_res_limit=32.0,
        pred_iou_thresh=0.8,
        checkpoint=Checkpoint(
            file=f"{family}_hiera_{size}.pt",
            bytes=size_in_bytes,
            sha256=sha256,
            source=_SAM2_SOURCE,
            license="Apache-2.0",
            url=f"https://dl.fbaipublicfiles.com/segment_anything_2/{_SAM2_DAYS[family]}/{family}_hiera_{size}.pt",
        ),
    )


_HIERA_TINY = HieraEncoder()
_HIERA_SMALL = HieraEncoder(stages=(1, 2, 11, 2), global_att_blocks=(7, 10, 13))
_HIERA_BASE_PLUS = HieraEncoder(112, 2, (2, 3, 16, 3), (12, 16, 20), 14)
_HIERA_LARGE = HieraEncoder(144, 2, (2, 6, 36, 4), (23, 33, 43), 7, (8, 4, 16, 8))


def _edge_sam(name: str) -> Model:
    # EdgeSAM's IoU head was not distilled; its authors rank masks by stability instead.
    return Model(
        name=name,
        family="edge_sam",
        parameters=9_582_112,
        image_size=1024,
        encoder=RepVitEncoder(),
        scores="stability",
        checkpoint=Checkpoint(
            file=f"{name}.pth",
            bytes=None,
            sha256=None,
            source="https://huggingface.co/spaces/chongzhou/EdgeSAM/tree/main/weights",
            license="NTU S-Lab License 1.0 (non-commercial)",
            url=f"https://huggingface.co/spaces/chongzhou/EdgeSAM/resolve/main/weights/{name}.pth",
        ),
    )


def _efficient_sam(
    name: str,
    parameters: int,
    encoder: PlainVitEncoder,
    file: str,
    sha256: str | None = None,
    url: str | None = None,
) -> Model:
    return Model(
        name=name,
        family="efficient_sam",
        parameters=parameters,
        image_size=1024,
        encoder=encoder,
        preprocess=Preprocess(resize="stretch", antialias=False),
        prompt=PromptRules(num_points=6, mask_prompt=False),
        mask_count=3,
        first_multimask=0,
        checkpoint=Checkpoint(
            file=file,
            bytes=None,
            sha256=sha256,
            source="https://github.com/yformer/EfficientSAM/tree/main/weights",
            license="Apache-2.0",
            url=url,
        ),
    )


CATALOGUE: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            name="sam_edge_tiny",
            family="sam_edge_tiny",
            parameters=3_294_352,
            image_size=320,
            encoder=TinyEncoder(),
            decoder=Decoder(dim=128, num_heads=8, mlp_dim=768, iou_head_hidden_dim=128),
            pred_iou_thresh=0.5,
            stability_score_thresh=0.5,
            checkpoint=Checkpoint(
                file="sam_edge_tiny.safetensors",
                bytes=6_617_624,
                sha256="325b0fd3b2c469b76a17f8ebfabee3c53ed8163ca237fb7e898680d2ea0957a5",
                source="embedded",
                license="Apache-2.0",
                sha256_by="sam-edge",
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
                url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
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
                url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_l_0b3195.pth",
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
                url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
            ),
        ),
        Model(
            name="sam_hq_vit_b",
            family="sam_hq",
            parameters=94_806_576,
            image_size=1024,
            encoder=VitEncoder(768, 12, 12, (2, 5, 8, 11)),
            extra_embeddings=_HQ_FEATURES,
            checkpoint=Checkpoint(
                file="sam_hq_vit_b.pth",
                bytes=None,
                sha256=None,
                source=_SAM_HQ_SOURCE,
                license="Apache-2.0",
                url="https://huggingface.co/lkeab/hq-sam/resolve/main/sam_hq_vit_b.pth",
            ),
        ),
        Model(
            name="sam_hq_vit_l",
            family="sam_hq",
            parameters=313_676_080,
            image_size=1024,
            encoder=VitEncoder(1024, 24, 16, (5, 11, 17, 23)),
            extra_embeddings=_HQ_FEATURES,
            checkpoint=Checkpoint(
                file="sam_hq_vit_l.pth",
                bytes=None,
                sha256=None,
                source=_SAM_HQ_SOURCE,
                license="Apache-2.0",
                url="https://huggingface.co/lkeab/hq-sam/resolve/main/sam_hq_vit_l.pth",
            ),
        ),
        Model(
            name="sam_hq_vit_h",
            family="sam_hq",
            parameters=642_686_000,
            image_size=1024,
            encoder=VitEncoder(1280, 32, 16, (7, 15, 23, 31)),
            extra_embeddings=_HQ_FEATURES,
            checkpoint=Checkpoint(
                file="sam_hq_vit_h.pth",
                bytes=2_570_940_653,
                sha256="a7ac14a085326d9fa6199c8c698c4f0e7280afdbb974d2c4660ec60877b45e35",
                source=_SAM_HQ_SOURCE,
                license="Apache-2.0",
                url="https://huggingface.co/lkeab/hq-sam/resolve/main/sam_hq_vit_h.pth",
            ),
        ),
        Model(
            name="sam_hq_vit_tiny",
            family="sam_hq",
            parameters=10_256_964,
            image_size=1024,
            encoder=TinyVitEncoder(),
            extra_embeddings=_HQ_FEATURES,
            checkpoint=Checkpoint(
                file="sam_hq_vit_tiny.pth",
                bytes=None,
                sha256="0f32c075ccdd870ae54db2f7630e7a0878ede5a2b06d05d6fe02c65a82fb7196",
                source=_SAM_HQ_SOURCE,
                license="Apache-2.0",
                url="https://huggingface.co/lkeab/hq-sam/resolve/main/sam_hq_vit_tiny.pth",
            ),
        ),
        Model(
            name="slimsam_50",
            family="slimsam",
            parameters=27_961_776,
            image_size=1024,
            encoder=VitEncoder(384, 12, 12, (2, 5, 8, 11)),
            checkpoint=Checkpoint(
                file="SlimSAM-50-uniform.pth",
                bytes=None,
                sha256=None,
                source="https://github.com/czg1225/SlimSAM#model-checkpoints",
                license="Apache-2.0",
            ),
        ),
        Model(
            name="slimsam_77",
            family="slimsam",
            parameters=9_723_528,
            image_size=1024,
            encoder=VitEncoder(168, 12, 12, (2, 5, 8, 11), mlp_dim=696),
            checkpoint=Checkpoint(
                file="SlimSAM-77-uniform.pth",
                bytes=None,
                sha256=None,
                source="https://github.com/czg1225/SlimSAM#model-checkpoints",
                license="Apache-2.0",
            ),
        ),
        Model(
            name="mobile_sam",
            family="mobile_sam",
            parameters=9_808_452,
            image_size=1024,
            encoder=TinyVitEncoder(),
            checkpoint=Checkpoint(
                file="mobile_sam.pt",
                bytes=40_728_226,
                sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
                source="https://github.com/ChaoningZhang/MobileSAM/tree/master/weights",
                license="Apache-2.0",
                url="https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
            ),
        ),
        _efficientvit_sam(
            "l0",
            34_792_784,
            512,
            _efficientvit_l((1, 1, 4, 4), 4),
            "c4f994b01a16d48bcf2fbbb089448cfbf58fae5811edfa8113c953b8b8cc64b8",
        ),
        _efficientvit_sam("l1", 47_650_128, 512, _efficientvit_l((1, 1, 6, 6), 8)),
        _efficientvit_sam("l2", 61_328_592, 512, _efficientvit_l((2, 2, 8, 8), 12)),
        _efficientvit_sam("xl0", 116_957_904, 1024, _efficientvit_xl(0, (1, 1, 2, 3, 3), 6)),
        _efficientvit_sam("xl1", 203_346_128, 1024, _efficientvit_xl(1, (2, 2, 4, 6, 6), 12)),
        _edge_sam("edge_sam"),
        _edge_sam("edge_sam_3x"),
        _efficient_sam(
            "efficient_sam_vitt",
            10_223_204,
            PlainVitEncoder(192, 3),
            "efficient_sam_vitt.pt",
            "dff858b19600a46461cbb7de98f796b23a7a888d9f5e34c0b033f7d6eb9e4e6a",
            "https://github.com/yformer/EfficientSAM/raw/main/weights/efficient_sam_vitt.pt",
        ),
        # Published inside efficient_sam_vits.pt.zip.
        _efficient_sam("efficient_sam_vits", 26_413_028, PlainVitEncoder(384, 6), "efficient_sam_vits.pt"),
        _sam2("sam2", "tiny", 31_308_880, _HIERA_TINY),
        _sam2("sam2", "small", 38_406_736, _HIERA_SMALL),
        _sam2("sam2", "base_plus", 73_196_560, _HIERA_BASE_PLUS),
        _sam2("sam2", "large", 216_793_024, _HIERA_LARGE),
        _sam2(
            "sam2.1",
            "tiny",
            31_308_880,
            _HIERA_TINY,
            "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
            156_008_466,
        ),
        _sam2(
            "sam2.1",
            "small",
            38_406_736,
            _HIERA_SMALL,
            "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        ),
        _sam2(
            "sam2.1",
            "base_plus",
            73_196_560,
            _HIERA_BASE_PLUS,
            "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        ),
        _sam2(
            "sam2.1",
            "large",
            216_793_024,
            _HIERA_LARGE,
            "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        ),
        Model(
            name="edgetam",
            family="edgetam",
            parameters=8_988_800,
            image_size=1024,
            encoder=RepVitPyramidEncoder(),
            prompt=PromptRules(padding_point="always"),
            preprocess=Preprocess(resize="stretch"),
            extra_embeddings=_HIGH_RES_FEATURES,
            low_res_limit=32.0,
            pred_iou_thresh=0.8,
            checkpoint=Checkpoint(
                file="edgetam.pt",
                bytes=None,
                sha256=None,
                source="https://github.com/facebookresearch/EdgeTAM/tree/main/checkpoints",
                license="Apache-2.0",
                url="https://github.com/facebookresearch/EdgeTAM/raw/main/checkpoints/edgetam.pt",
            ),
        ),
    )
}

DEFAULT_MODEL = "sam_edge_tiny"

# Billions of multiply-accumulates of the image encoder at its input size, as counted by `export/macs.py`.
ENCODER_GMACS = {
    "sam_edge_tiny": 1.331,
    "vit_b": 486.0,
    "vit_l": 1493.0,
    "vit_h": 2981.0,
    "sam_hq_vit_b": 490.2,
    "sam_hq_vit_l": 1498.0,
    "sam_hq_vit_h": 2987.0,
    "sam_hq_vit_tiny": 40.38,
    "slimsam_50": 153.5,
    "slimsam_77": 46.56,
    "mobile_sam": 38.77,
    "efficientvit_sam_l0": 34.85,
    "efficientvit_sam_l1": 49.05,
    "efficientvit_sam_l2": 68.62,
    "efficientvit_sam_xl0": 184.9,
    "efficientvit_sam_xl1": 321.9,
    "edge_sam": 20.07,
    "edge_sam_3x": 20.07,
    "efficient_sam_vitt": 102.3,
    "efficient_sam_vits": 245.6,
    "sam2_hiera_tiny": 143.4,
    "sam2_hiera_small": 177.2,
    "sam2_hiera_base_plus": 320.2,
    "sam2_hiera_large": 907.6,
    "sam2.1_hiera_tiny": 143.4,
    "sam2.1_hiera_small": 177.2,
    "sam2.1_hiera_base_plus": 320.2,
    "sam2.1_hiera_large": 907.6,
    "edgetam": 17.54,
}


def rows() -> list[dict[str, Any]]:
    """Return the catalogue as rows of JSON data, for `sam-edge models` and models/README.md."""
    return [
        {
            "name": model.name,
            "family": model.family,
            "parameters": model.parameters,
            "encoder_gmacs": ENCODER_GMACS[model.name],
            "input_size": model.image_size,
            "file": model.checkpoint.file,
            "bytes": model.checkpoint.bytes,
            "sha256": model.checkpoint.sha256,
            "sha256_by": model.checkpoint.sha256_by,
            "license": model.checkpoint.license,
            "source": model.checkpoint.source,
            "url": model.checkpoint.url,
            "embedded": model.checkpoint.source == "embedded",
        }
        for model in CATALOGUE.values()
    ]
