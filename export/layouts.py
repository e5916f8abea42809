"""The names that checkpoints give to a model's tensors: which files hold them, and ours for them.

Ours are the published ones wherever that is possible. A layout is tried with the models of its families; the
first whose names and shapes all agree is the checkpoint's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

Weights = dict[str, Tensor]
Renames = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Layout:
    """One way to name the tensors of some families.

    Attributes:
        name: "published" or "huggingface".
        families: of the catalogue's.
        renames: (pattern, replacement), as of `re.sub`; the first that matches a name is applied.
        left_out: pattern of names that the file may hold and inference does not need.
    """

    name: str
    families: tuple[str, ...]
    renames: Renames = ()
    left_out: str | None = None

    def ours(self, weights: Weights) -> Weights:
        """The same tensors under our names."""
        return {
            self._renamed(key): value
            for key, value in weights.items()
            if self.left_out is None or re.search(self.left_out, key) is None
        }

    def _renamed(self, key: str) -> str:
        for pattern, replacement in self.renames:
            new, count = re.subn(pattern, replacement, key)
            if count:
                return new
        return key


_HUGGING_FACE_SAM: Renames = (
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
)

LAYOUTS = (
    Layout("published", ("sam", "sam_edge_tiny")),
    # It stores one tensor twice.
    Layout("huggingface", ("sam",), _HUGGING_FACE_SAM, r"^shared_image_embedding\.positional_embedding$"),
)
