"""Read a published CLIP (Radford et al. 2021): a folder with its weights, configuration and vocabulary.

Two layouts are read: Hugging Face's (`config.json`), and that of OpenAI and OpenCLIP (`visual.conv1.weight`,
optionally with `open_clip_config.json`). Sizes follow from the tensors' shapes. The number of heads, the
activation and the like, which shapes do not determine, come from the configuration.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sam_edge.errors import CheckpointError

from ..architectures.clip import ClipConfig, ClipModel, Tower
from ..checkpoints.layouts import Renames, Weights
from ..checkpoints.read import differences, read_weights

# OpenAI's normalisation, for images from 0 to 1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# The first of these that exists is read; if none does, the only file with one of the suffixes.
_NAMES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
# Entries of state dicts that are not weights: sizes, and position indices.
_IGNORED = re.compile(r"position_ids$|^(input_resolution|context_length|vocab_size|attn_mask)$")
# The heads of OpenAI's towers are 64 wide; towers wider than these have other heads.
_HEAD_WIDTH, _WIDEST = 64, 1024

_RENAMES: Renames = (
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^visual_projection\.weight$", "visual.proj"),
)
_BLOCK_RENAMES: Renames = (
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.", ".attn."),
)


@dataclass(frozen=True)
class ClipLoaded:
    """A recognised CLIP.

    Attributes:
        model: in evaluation mode.
        path: the file of its weights.
        layout: "huggingface" or "published".
        mean: per channel of its images, RGB from 0 to 1.
        std: per channel of its images, RGB from 0 to 1.
        remark: what was assumed for lack of a configuration, if anything.
    """

    model: ClipModel
    path: Path
    layout: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    remark: str = ""


@dataclass(frozen=True)
class _Traits:
    """What shapes do not determine; None where a default follows from them."""

    text_heads: int | None = None
    vision_heads: int | None = None
    text_activation: str = "quick_gelu"
    vision_activation: str = "quick_gelu"
    text_eps: float = 1e-5
    vision_eps: float = 1e-5
    end_of_text: int | None = None
    image_size: int | None = None


def load_clip(folder: Path) -> ClipLoaded:
    """Read the CLIP in a folder.

    Raises:
        CheckpointError: the folder does not exist, or its files are damaged, unsafe or no CLIP with a ViT.
    """
    path = _weights_file(folder)
    stored = {key: value for key, value in read_weights(path).items() if not _IGNORED.search(key)}
    huggingface = any(key.startswith(("text_model.", "vision_model.")) for key in stored)
    remark, mean, std = "", MEAN, STD
    if huggingface:
        weights = _from_hugging_face(stored)
        traits = _hugging_face_traits(_read_json(folder / "config.json", needed=True))
        mean, std = _statistics(_read_json(folder / "preprocessor_config.json"), "image_mean", "image_std")
    else:
        weights = stored
        published = _read_json(folder / "open_clip_config.json")
        traits = _open_clip_traits(published)
        mean, std = _statistics(published.get("preprocess_cfg", {}), "mean", "std")
        if not published:
            remark = "it has no open_clip_config.json; assumed as OpenAI's: quick_gelu, heads 64 wide"
    config = _config(path, weights, traits)
    with torch.device("meta"):
        model = ClipModel(config)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    if expected != found:
        raise CheckpointError(f"{path} is no CLIP of a known layout: {differences(expected, found)}")
    model = ClipModel(config)
    model.load_state_dict({key: value.float() for key, value in weights.items()}, assign=True)
    layout = "huggingface" if huggingface else "published"
    return ClipLoaded(model.requires_grad_(False).eval(), path, layout, mean, std, remark)


def _weights_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise CheckpointError(
            f"--clip {folder} is not a folder; give one with a CLIP's weights, configuration and "
            "vocabulary, as published on Hugging Face"
        )
    named = [folder / name for name in _NAMES if (folder / name).is_file()]
    others = sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    if named:
        return named[0]
    if len(others) != 1:
        found = ", ".join(p.name for p in others) or "none"
        raise CheckpointError(
            f"--clip {folder}: expected {_NAMES[0]}, or one file of weights "
            f"({', '.join(_SUFFIXES)}); found {found}"
        )
    return others[0]


def _read_json(path: Path, needed: bool = False) -> dict[str, Any]:
    """Read a JSON object; return an empty one where the file does not exist and is not needed."""
    if not path.is_file() and not needed:
        return {}
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); it defines the model's heads and activation, so put the "
            "published one beside the weights"
        ) from error
    return content


def _statistics(
    content: dict[str, Any], mean: str, std: str
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    def rgb(name: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
        values = content.get(name, default)
        if not (
            isinstance(values, list | tuple)
            and len(values) == 3
            and all(isinstance(value, int | float) for value in values)
        ):
            raise CheckpointError(f"the CLIP's {name} is {values!r}; expected three numbers, R, G and B")
        red, green, blue = map(float, values)
        return red, green, blue

    return rgb(mean, MEAN), rgb(std, STD)


def _hugging_face_traits(config: dict[str, Any]) -> _Traits:
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    # Early configurations have 2 here by mistake, which stands for the highest token id.
    end = text.get("eos_token_id", 49407)
    return _Traits(
        text_heads=text.get("num_attention_heads", 8),
        vision_heads=vision.get("num_attention_heads", 12),
        text_activation=text.get("hidden_act", "quick_gelu"),
        vision_activation=vision.get("hidden_act", "quick_gelu"),
        text_eps=text.get("layer_norm_eps", 1e-5),
        vision_eps=vision.get("layer_norm_eps", 1e-5),
        end_of_text=None if end == 2 else end,
        image_size=vision.get("image_size", 224),
    )


def _open_clip_traits(config: dict[str, Any]) -> _Traits:
    if not config:
        return _Traits()
    model = config.get("model_cfg", config)
    text, vision = model.get("text_cfg") or {}, model.get("vision_cfg") or {}
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    width, head_width = vision.get("width"), vision.get("head_width", _HEAD_WIDTH)
    return _Traits(
        text_heads=text.get("heads"),
        vision_heads=width // head_width if isinstance(width, int) else None,
        text_activation=activation,
        vision_activation=activation,
        image_size=vision.get("image_size"),
    )


def _from_hugging_face(stored: Weights) -> Weights:
    """Map Hugging Face's tensor names to OpenAI's, and merge queries, keys and values."""
    weights = {}
    for key, value in stored.items():
        name = _renamed(key, _RENAMES)
        for pattern, replacement in _BLOCK_RENAMES:
            name = re.sub(pattern, replacement, name)
        weights[name] = value.T if name in ("text_projection", "visual.proj") else value
    for kind in ("weight", "bias"):
        for name in [n for n in weights if n.endswith(f".attn.q_proj.{kind}")]:
            start = name.removesuffix(f"q_proj.{kind}")
            parts = [weights.get(f"{start}{part}_proj.{kind}") for part in "qkv"]
            if all(part is not None for part in parts):
                weights[f"{start}in_proj_{kind}"] = torch.cat([p for p in parts if p is not None])
                for part in "qkv":
                    del weights[f"{start}{part}_proj.{kind}"]
    return weights


def _renamed(key: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        new, count = re.subn(pattern, replacement, key)
        if count:
            return new
    return key


def _config(path: Path, weights: Weights, traits: _Traits) -> ClipConfig:
    """Derive a model's sizes from the shapes of its weights and from `traits`."""

    def shape(name: str, axes: int) -> tuple[int, ...]:
        tensor = weights.get(name)
        if tensor is None or tensor.dim() != axes:
            state = "lacks" if tensor is None else f"has {tuple(tensor.shape)} as"
            first = next(iter(weights), "nothing")
            raise CheckpointError(
                f"{path} is no CLIP with a ViT: it {state} {name}; its first tensor is {first}. Give a "
                "published CLIP ViT, of Hugging Face's layout or of OpenAI's and OpenCLIP's"
            )
        return tuple(tensor.shape)

    def tower(start: str, width: int, heads: int | None, activation: str, eps: float) -> Tower:
        pattern = re.compile(rf"^{re.escape(start)}transformer\.resblocks\.(\d+)\.")
        layers = len({match[1] for match in map(pattern.match, weights) if match})
        mlp_width, _ = shape(f"{start}transformer.resblocks.0.mlp.c_fc.weight", 2)
        if heads is None:
            heads = width // _HEAD_WIDTH
            if width > _WIDEST:
                raise CheckpointError(
                    f"{path}: the number of heads of a tower {width} wide is unknown; put the published "
                    "open_clip_config.json beside it"
                )
        if not isinstance(heads, int) or heads < 1 or width % heads:
            raise CheckpointError(
                f"{path}: {heads} heads do not fit a tower {width} wide; does the config belong to it?"
            )
        if activation not in ("quick_gelu", "gelu"):
            raise CheckpointError(f"{path}: unknown activation {activation!r}; expected quick_gelu or gelu")
        return Tower(width, layers, heads, mlp_width, activation, float(eps))

    vocab_size, text_width = shape("token_embedding.weight", 2)
    context_length, _ = shape("positional_embedding", 2)
    _, embed_dim = shape("text_projection", 2)
    vision_width, _, patch, _ = shape("visual.conv1.weight", 4)
    tokens, _ = shape("visual.positional_embedding", 2)
    side = math.isqrt(tokens - 1)
    image_size = traits.image_size if isinstance(traits.image_size, int) else side * patch
    if image_size // patch != side:
        raise CheckpointError(
            f"{path} has {tokens - 1} image positions, its config says {image_size} pixels in patches of "
            f"{patch}; does the config belong to it?"
        )
    end = vocab_size - 1 if traits.end_of_text is None else traits.end_of_text
    if not isinstance(end, int) or not 0 <= end < vocab_size:
        raise CheckpointError(f"{path}: eos_token_id {end!r} is not among its {vocab_size} tokens")
    return ClipConfig(
        embed_dim=embed_dim,
        text=tower("", text_width, traits.text_heads, traits.text_activation, traits.text_eps),
        context_length=context_length,
        vocab_size=vocab_size,
        end_of_text=end,
        vision=tower(
            "visual.", vision_width, traits.vision_heads, traits.vision_activation, traits.vision_eps
        ),
        image_size=image_size,
        patch_size=patch,
    )
