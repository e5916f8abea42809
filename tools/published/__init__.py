"""Imports the published code of `segment_anything` 1.0 and MobileSAM, which the `dev` extra installs.

Stand-ins replace the few functions that they import from torchvision and timm, where these are not installed.
"""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sam_edge.errors import CheckpointError
from sam_edge.export.checkpoints.read import Loaded, build_reference, load_checkpoint
from sam_edge.models.catalogue import CATALOGUE, DEFAULT_MODEL, HERE, Model
from sam_edge.models.encoders import VitEncoder
from tools.published.torchvision_parts import importable_torchvision, stand_ins


def published(name: str = "") -> Any:
    """A module of `segment_anything`, for example "utils.onnx"; or the package itself."""
    with importable_torchvision():
        return importlib.import_module(f"segment_anything.{name}" if name else "segment_anything")


def published_mobile_sam() -> Any:
    """The package `mobile_sam` (mobilesam-mirror 1.0.0); of timm, only training needs more than stand-ins."""
    helpers: dict[str, dict[str, Any]] = {
        "": {},
        ".models": {},
        ".models.layers": {
            "DropPath": nn.Identity,
            "to_2tuple": lambda side: (side, side),
            "trunc_normal_": nn.init.trunc_normal_,
        },
        ".models.registry": {"register_model": lambda model: model},
    }
    with importable_torchvision(), stand_ins("timm", helpers):
        return importlib.import_module("mobile_sam")


def published_sam(model: Model, image_encoder: Any = None) -> Any:
    """Build the published `Sam` with the sizes of a catalogue entry.

    Args:
        model: the entry.
        image_encoder: needed where it is not a ViT.
    """
    modeling = published("modeling")
    encoder, decoder, side = model.encoder, model.decoder, model.embedding_side
    if image_encoder is None:
        assert isinstance(encoder, VitEncoder)
        image_encoder = modeling.ImageEncoderViT(
            depth=encoder.depth,
            embed_dim=encoder.embed_dim,
            img_size=model.image_size,
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=encoder.num_heads,
            patch_size=16,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=encoder.global_attn_indexes,
            window_size=14,
            out_chans=decoder.dim,
        )
    image_encoder.img_size = model.image_size
    return modeling.Sam(
        image_encoder=image_encoder,
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=decoder.dim,
            image_embedding_size=(side, side),
            input_image_size=(model.image_size, model.image_size),
            mask_in_chans=decoder.mask_in_chans,
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=decoder.depth,
                embedding_dim=decoder.dim,
                mlp_dim=decoder.mlp_dim,
                num_heads=decoder.num_heads,
            ),
            transformer_dim=decoder.dim,
            iou_head_depth=3,
            iou_head_hidden_dim=decoder.iou_head_hidden_dim,
        ),
        pixel_mean=list(model.preprocess.mean),
        pixel_std=list(model.preprocess.std),
    ).eval()


def published_around(checkpoint: Path | None = None) -> Any:
    """Load a checkpoint into the published code, in evaluation mode.

    The image encoder is the published one for SAM and MobileSAM, and sam-edge's reference for other families.

    Args:
        checkpoint: of a family whose decoder is SAM's; None for the embedded model.

    Raises:
        CheckpointError: the decoder is another one.
    """
    embedded = HERE / CATALOGUE[DEFAULT_MODEL].checkpoint.file
    loaded = load_checkpoint(checkpoint or embedded, None)
    if loaded.model.name in (registry := published().sam_model_registry):
        sam = registry[loaded.model.name]()
        sam.load_state_dict(loaded.weights)
        return sam
    ours = build_reference(loaded)
    encoder = _tiny_vit(loaded) if loaded.model.family == "mobile_sam" else ours.image_encoder
    theirs = published_sam(loaded.model, encoder)
    state = {k: v for k, v in ours.state_dict().items() if not k.startswith("image_encoder.")}
    found = theirs.load_state_dict(state, strict=False)
    missing = [key for key in found.missing_keys if not key.startswith("image_encoder.")]
    if missing or found.unexpected_keys:
        raise CheckpointError(
            f"{loaded.model.name} does not have the decoder of SAM: missing {missing}, "
            f"unexpected {found.unexpected_keys}; expected a family whose decoder is SAM's"
        )
    return theirs


def _tiny_vit(loaded: Loaded) -> nn.Module:
    encoder: nn.Module = published_mobile_sam().sam_model_registry["vit_t"]().image_encoder
    prefix = "image_encoder."
    state = {k.removeprefix(prefix): v for k, v in loaded.weights.items() if k.startswith(prefix)}
    # What is missing is the classifier that it was trained with.
    missing, unexpected = encoder.load_state_dict(state, strict=False)
    assert not unexpected and all(key.split(".")[0] in ("norm_head", "head") for key in missing)
    # In evaluation mode it caches a copy of its biases.
    return encoder.eval().requires_grad_(False)
