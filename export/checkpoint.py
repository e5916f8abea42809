"""Read a checkpoint and tell which model it is, by its keys and shapes.

Two layouts are read: the published one (`segment-anything`, whose keys are ours) and Hugging Face
`transformers`' SamModel, which is renamed to it. Nothing is ever unpickled beyond tensors and plain
containers.
"""

from __future__ import annotations

import pickle
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sam_edge.errors import CheckpointError
from sam_edge.models.catalogue import CATALOGUE, Model

from .reference.model import SamModel

Weights = dict[str, Tensor]

_HF_RENAMES = [
    (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"^vision_encoder\.layers\.(\d+)\.layer_norm([12])\.", r"image_encoder.blocks.\1.norm\2."),
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (r"^vision_encoder\.", "image_encoder."),
    (
        r"^prompt_encoder\.shared_embedding\.positional_embedding$",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^(mask_decoder\.transformer\.layers\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (
        r"^mask_decoder\.transformer\.layer_norm_final_attn\.",
        "mask_decoder.transformer.norm_final_attn.",
    ),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (
        r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.0\.",
        r"\1.layers.1.",
    ),
    (
        r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.proj_in\.",
        r"\1.layers.0.",
    ),
    (
        r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.proj_out\.",
        r"\1.layers.2.",
    ),
]
# The same tensor is stored twice in the Hugging Face layout.
_HF_DUPLICATE = "shared_image_embedding.positional_embedding"


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was recognised: its model, its weights under the published names, and the
    layout it was in (`segment-anything` or `huggingface`)."""

    model: Model
    weights: Weights
    layout: str


def load_checkpoint(path: Path, name: str | None = None) -> Loaded:
    """Read `path` and recognise it; with `name`, insist that it is that model.

    Raises:
        CheckpointError: missing, truncated, unsafe, foreign or partly matching file.
    """
    weights, layout = _published_names(_read(path))
    model = _recognise(weights, path, name)
    return Loaded(model, {key: value.float() for key, value in weights.items()}, layout)


def build_reference(loaded: Loaded) -> SamModel:
    """The reference model with the checkpoint's weights, in evaluation mode."""
    with torch.device("meta"):
        sam = SamModel(loaded.model)
    sam.load_state_dict(loaded.weights, assign=True)
    return sam.requires_grad_(False).eval()


def _read(path: Path) -> Weights:
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path} is not a file; give the path of a .pth or .safetensors file"
        )
    content: object
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path} is not a file of plain tensors (it may hold code, which is never "
            "run); expected a state dict saved by torch.save, or .safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read, it looks truncated or damaged "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); download it again"
        ) from error
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"checkpoint {path} holds no state dict; expected names and tensors")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _published_names(weights: Weights) -> tuple[Weights, str]:
    if not any(key.startswith("vision_encoder.") for key in weights):
        return weights, "segment-anything"
    renamed: Weights = {}
    for key, value in weights.items():
        if key == _HF_DUPLICATE:
            continue
        for pattern, replacement in _HF_RENAMES:
            new, count = re.subn(pattern, replacement, key)
            if count:
                key = new
                break
        renamed[key] = value
    return renamed, "huggingface"


def expected_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Every key of the published layout of `model`, with its shape."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in SamModel(model).state_dict().items()}


def _recognise(weights: Weights, path: Path, name: str | None) -> Model:
    if name is not None and name not in CATALOGUE:
        raise CheckpointError(f"unknown model {name!r}; known: {', '.join(CATALOGUE)}")
    candidates = [CATALOGUE[name]] if name else list(CATALOGUE.values())
    found = {key: tuple(value.shape) for key, value in weights.items()}
    nearest, agreeing, nearest_shapes = candidates[0], -1.0, {}
    for model in candidates:
        expected = expected_shapes(model)
        if expected == found:
            return model
        same = len(expected.items() & found.items()) / len(expected)
        if same > agreeing:
            nearest, agreeing, nearest_shapes = model, same, expected
    missing = [key for key in nearest_shapes if key not in found]
    unexpected = [key for key in found if key not in nearest_shapes]
    misshapen = [
        f"{key} {found[key]} instead of {shape}"
        for key, shape in nearest_shapes.items()
        if key in found and found[key] != shape
    ]
    differences = "; ".join(
        f"{len(keys)} {what}, first {keys[0]}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if keys
    )
    raise CheckpointError(
        f"checkpoint {path} is no model that sam-edge knows; the nearest is {nearest.name} "
        f"({agreeing:.0%} of its tensors agree): {differences}"
    )
