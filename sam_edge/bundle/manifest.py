"""`manifest.json`: what a bundle holds, and the inputs and outputs of its model.

The schema is `manifest.schema.json`; this module reads, checks and writes it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import BundleError, IntegrityError
from ..imaging.preprocess import InputRules
from ..system.files import write_atomically
from .checks import check_contents
from .enums import find_unknown_names, schema
from .schema import validate
from .variant import STAGES, ClipVariant, File, Json, Variant

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "STAGES",
    "CheckpointInfo",
    "ClipEntry",
    "ClipRules",
    "Manifest",
    "ModelInfo",
    "PromptRules",
    "ResizedFrom",
    "describe_resize_accuracy",
    "integrity",
    "model_facts",
    "read_manifest",
    "schema",
    "write_manifest",
]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class CheckpointInfo:
    """The checkpoint that was exported: file name, SHA-256, size in bytes, and whether its parameters have
    the names of the "published" code or of "huggingface"."""

    file: str
    sha256: str
    bytes: int
    layout: str

    @classmethod
    def from_json(cls, data: Json) -> CheckpointInfo:
        """Read a manifest's `checkpoint`."""
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        return asdict(self)


@dataclass(frozen=True)
class ModelInfo:
    """The model that a bundle was made from.

    Attributes:
        family, name: as in `sam-edge models`.
        parameters: how many.
        checkpoint: where they come from.
        license: of the weights.
        encoder_gmacs: billions of multiply-accumulates of one encoding; None if not known.
    """

    family: str
    name: str
    parameters: int
    checkpoint: CheckpointInfo
    license: str
    encoder_gmacs: float | None = None

    @classmethod
    def from_json(cls, data: Json) -> ModelInfo:
        """Read a manifest's `model`."""
        return cls(**{**data, "checkpoint": CheckpointInfo.from_json(data["checkpoint"])})

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        gmacs = {} if self.encoder_gmacs is None else {"encoder_gmacs": self.encoder_gmacs}
        return {
            "family": self.family,
            "name": self.name,
            "parameters": self.parameters,
            **gmacs,
            "checkpoint": self.checkpoint.to_json(),
            "license": self.license,
        }


@dataclass(frozen=True)
class ResizedFrom:
    """The model's own input size, where the bundle's is another, and what that change costs.

    Attributes:
        size: (height, width) in pixels that the model was trained at.
        mean_iou, min_iou, boundary_iou: agreement of the reference's masks at the bundle's size with its
            masks at `size`, over prompts.
        num_prompts: how many prompts were compared.
    """

    size: tuple[int, int]
    mean_iou: float
    min_iou: float
    boundary_iou: float
    num_prompts: int

    @classmethod
    def from_json(cls, data: Json) -> ResizedFrom:
        """Read a manifest's `resized_from`."""
        height, width = data["size"]
        return cls(**{**data, "size": (int(height), int(width))})

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        return {**asdict(self), "size": list(self.size)}


@dataclass(frozen=True)
class PromptRules:
    """How prompts are given to the decoder.

    Attributes:
        coordinate_size: (height, width) of the square that coordinates are pixels of; the encoder's input,
            padding included, scaled to it.
        padding_point: "without_box" or "always": when a padding point (0, 0), label -1, is appended.
        num_points: how many points the decoder takes, padding points included; None for any number.
        mask_prompt: whether an earlier mask can be a prompt.
        text_embeddings: whether the decoder takes text embeddings as tokens of a prompt.
    """

    coordinate_size: tuple[int, int]
    padding_point: str
    num_points: int | None
    mask_prompt: bool = True
    text_embeddings: bool = False


@dataclass(frozen=True)
class ClipRules:
    """The inputs and outputs of a bundle's CLIP.

    Attributes:
        image_size: side in pixels of its square input; images are resized by their short side, as Pillow's
            bicubic does, and cropped at their centre.
        mean, std: of the image's R, G and B, on the 0 to 255 scale.
        context_length: tokens of a text, the first and the last one included.
        end_of_text: the number of the token that ends a text.
        embed_dim: length of a feature.
        logit_scale: the factor of cosine similarities that it was trained with.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    context_length: int
    end_of_text: int
    embed_dim: int
    logit_scale: float


@dataclass(frozen=True)
class ClipEntry:
    """The CLIP of a bundle: its inputs and outputs, its tokenizer, its golden data and its graphs."""

    checkpoint: CheckpointInfo
    parameters: int
    rules: ClipRules
    tokenizer: File
    golden: File
    variants: tuple[ClipVariant, ...]

    @property
    def files(self) -> tuple[File, ...]:
        """Every file of it."""
        return (self.tokenizer, self.golden, *(file for one in self.variants for file in one.files))

    @classmethod
    def from_json(cls, data: Json) -> ClipEntry:
        """Read a manifest's `clip`."""
        rules = ClipRules(
            int(data["image_size"]),
            tuple(data["mean"]),
            tuple(data["std"]),
            int(data["context_length"]),
            int(data["end_of_text"]),
            int(data["embed_dim"]),
            float(data["logit_scale"]),
        )
        return cls(
            CheckpointInfo.from_json(data["checkpoint"]),
            int(data["parameters"]),
            rules,
            File.from_json(data["tokenizer"]),
            File.from_json(data["golden"]),
            tuple(map(ClipVariant.from_json, data["variants"])),
        )


@dataclass(frozen=True)
class Manifest:
    """A checked manifest. `data` is the JSON as read."""

    data: dict[str, Any]

    @cached_property
    def model(self) -> ModelInfo:
        """The model and its checkpoint."""
        return ModelInfo.from_json(self.data["model"])

    @property
    def checkpoint_sha256(self) -> str:
        """SHA-256 of the checkpoint that the bundle was made from."""
        return self.model.checkpoint.sha256

    @property
    def model_id(self) -> str:
        """The checkpoint's SHA-256, with the input's size where that is not the model's own: an embedding
        fits only the model that made it."""
        height, width = self.input.size
        return self.checkpoint_sha256 + (f"-{height}x{width}" if self.resized_from else "")

    @cached_property
    def input(self) -> InputRules:
        """How an image becomes the encoder's input."""
        rules = self.data["input"]
        return InputRules(
            (int(rules["size"][0]), int(rules["size"][1])),
            rules["resize"],
            rules["antialias"],
            tuple(rules["mean"]),
            tuple(rules["std"]),
            rules["pad_value"],
        )

    @property
    def resized_from(self) -> ResizedFrom | None:
        """The model's own input size and what another costs; None where the bundle's is the model's own."""
        found = self.data.get("resized_from")
        return None if found is None else ResizedFrom.from_json(found)

    @cached_property
    def prompt(self) -> PromptRules:
        """How prompts are given to the decoder."""
        rules = self.data["prompt"]
        height, width = rules["coordinate_size"]
        return PromptRules(
            (int(height), int(width)),
            rules["padding_point"],
            rules["num_points"],
            rules["mask_prompt"],
            rules.get("text_embeddings", False),
        )

    @cached_property
    def clip(self) -> ClipEntry | None:
        """The bundle's CLIP; None where it has none."""
        return ClipEntry.from_json(self.data["clip"]) if "clip" in self.data else None

    @property
    def coordinate_space(self) -> InputRules:
        """`input` at the size of the coordinate square: prompts go to its pixels and masks come from them."""
        return replace(self.input, size=self.prompt.coordinate_size)

    @property
    def mask_threshold(self) -> float:
        """Logits above this belong to the mask."""
        return float(self.data["mask"]["threshold"])

    @property
    def mask_size(self) -> tuple[int, int]:
        """(h, w) of the low-resolution logits."""
        h, w = self.data["mask"]["size"]
        return int(h), int(w)

    @property
    def low_res_limit(self) -> float | None:
        """Low-resolution logits are clipped to plus and minus this; None where they are not clipped."""
        limit = self.data["mask"]["low_res_limit"]
        return None if limit is None else float(limit)

    @property
    def mask_count(self) -> int:
        """The number of masks that the decoder returns for a prompt."""
        return int(self.data["mask"]["count"])

    @property
    def first_multimask(self) -> int:
        """Index of the first of the decoder's masks for ambiguous prompts; the one before it, if any, is for
        prompts that are not ambiguous."""
        return int(self.data["mask"]["first_multimask"])

    @property
    def pred_iou_thresh(self) -> float:
        """Default threshold of everything-mode on the predicted IoU: the model's own, or SAM's 0.88."""
        return float(self.data["mask"].get("pred_iou_thresh", 0.88))

    @property
    def stability_score_thresh(self) -> float:
        """Default threshold of everything-mode on the stability score: the model's own, or SAM's 0.95."""
        return float(self.data["mask"].get("stability_score_thresh", 0.95))

    @cached_property
    def golden(self) -> File:
        """The file of the golden data."""
        return File.from_json(self.data["golden"])

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """One for each format, precision and target that was exported."""
        return tuple(map(Variant.from_json, self.data["variants"]))


def integrity(data: Json) -> str:
    """Return the SHA-256 of the canonical JSON of everything but the key `integrity` itself."""
    rest = {key: value for key, value in data.items() if key != "integrity"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def model_facts(data: Json) -> dict[str, Any]:
    """Return the part of a manifest that is also stored in each artifact's own metadata."""
    keys = ("schema_version", "sam_edge_version", "model", "input", "resized_from", "prompt", "mask")
    return {key: data[key] for key in keys if key in data}


def describe_resize_accuracy(resized_from: ResizedFrom) -> str:
    """Say in a sentence how far masks agree with those at the model's own input size."""
    height, width = resized_from.size
    return (
        f"against the model's own {width} x {height}: mean IoU {resized_from.mean_iou:.4f} "
        f"(min {resized_from.min_iou:.4f}, boundary {resized_from.boundary_iou:.4f}, "
        f"{resized_from.num_prompts} prompts)"
    )


def read_manifest(bundle: Path) -> Manifest:
    """Read and check BUNDLE/manifest.json.

    Raises:
        BundleError: no bundle there, not JSON, made by a newer sam-edge, against the schema, or
            naming a path that leaves the bundle.
        IntegrityError: changed since the export.
    """
    path = bundle / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{bundle} is not a bundle: {path} cannot be read ({error.strerror}); give a directory "
            "made by `sam-edge export`"
        ) from error
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON ({error}); export the bundle again") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version}, this sam-edge reads up to {SCHEMA_VERSION}; "
            "upgrade sam-edge"
        )
    find_unknown_names(data)
    try:
        validate(data, schema())
    except ValueError as error:
        raise BundleError(f"{path} is not a valid manifest: {error}; export it again") from error
    check_contents(path, data)
    if integrity(data) != data["integrity"]:
        raise IntegrityError(f"{path} was changed since it was exported; export or copy the bundle again")
    return Manifest(data)


def write_manifest(bundle: Path, data: Json) -> None:
    """Check `data` against the schema, add its `integrity`, write BUNDLE/manifest.json."""
    data = {**data, "integrity": integrity(data)}
    data = json.loads(json.dumps(data, allow_nan=False))
    validate(data, schema())
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    write_atomically(bundle / MANIFEST, text.encode())
