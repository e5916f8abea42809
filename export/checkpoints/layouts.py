"""How checkpoint files name a model's tensors, and the names of the reference models for them.

The reference models use the published names wherever possible. A layout is tried with the models of its
families; the first whose names and shapes all match is the checkpoint's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

Weights = dict[str, Tensor]
Renames = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Layout:
    """How files of some families name their tensors.

    Attributes:
        name: "published" or "huggingface".
        families: families of the catalogue that it applies to.
        renames: (pattern, replacement) as for `re.sub`; the first that matches a name is applied.
        ignored: pattern of names that files may hold and inference does not need.
        stacked: (name, name with `{}`) of tensors that stack several of the model's, one per row; `{}` stands
            for the row's index.
    """

    name: str
    families: tuple[str, ...]
    renames: Renames = ()
    ignored: str | None = None
    stacked: Renames = ()

    def rename(self, weights: Weights) -> Weights:
        """Map a file's tensors to the names of the reference model."""
        renamed = {
            self._renamed(key): value
            for key, value in weights.items()
            if self.ignored is None or re.search(self.ignored, key) is None
        }
        for name, row_name in self.stacked:
            if name in renamed:
                rows = renamed.pop(name)
                renamed |= {row_name.format(index): rows[index : index + 1] for index in range(len(rows))}
        return renamed

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
        # The same tensor, stored under either name or both.
        r"^(?:prompt_encoder\.shared_embedding|shared_image_embedding)\.positional_embedding$",
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

# The layers that compute the HQ features belong to the image encoder, whose trunk is SAM's.
_SAM_HQ: Renames = (
    (r"^image_encoder\.", "image_encoder.trunk."),
    (r"^mask_decoder\.(compress_vit_feat|embedding_encoder)\.", r"image_encoder.\1."),
)

_HUGGING_FACE_SAM_HQ: Renames = (
    *((old, new.replace("image_encoder.", "image_encoder.trunk.")) for old, new in _HUGGING_FACE_SAM),
    (r"^mask_decoder\.compress_vit_conv1\.", "image_encoder.compress_vit_feat.0."),
    (r"^mask_decoder\.compress_vit_norm\.", "image_encoder.compress_vit_feat.1."),
    (r"^mask_decoder\.compress_vit_conv2\.", "image_encoder.compress_vit_feat.3."),
    (r"^mask_decoder\.encoder_conv1\.", "image_encoder.embedding_encoder.0."),
    (r"^mask_decoder\.encoder_norm\.", "image_encoder.embedding_encoder.1."),
    (r"^mask_decoder\.encoder_conv2\.", "image_encoder.embedding_encoder.3."),
    (r"^mask_decoder\.mask_conv1\.", "mask_decoder.embedding_maskfeature.0."),
    (r"^mask_decoder\.mask_norm\.", "mask_decoder.embedding_maskfeature.1."),
    (r"^mask_decoder\.mask_conv2\.", "mask_decoder.embedding_maskfeature.3."),
    (r"^mask_decoder\.hq_token\.", "mask_decoder.hf_token."),
    (r"^mask_decoder\.hq_mask_mlp\.proj_in\.", "mask_decoder.hf_mlp.layers.0."),
    (r"^mask_decoder\.hq_mask_mlp\.layers\.0\.", "mask_decoder.hf_mlp.layers.1."),
    (r"^mask_decoder\.hq_mask_mlp\.proj_out\.", "mask_decoder.hf_mlp.layers.2."),
)

# The projections of the pyramid's finer levels belong to the image encoder.
_SAM2: Renames = (
    (r"^image_encoder\.trunk\.(pos_embed(?:_window)?)$", r"image_encoder.trunk.positions.\1"),
    (r"^(image_encoder\.trunk\.blocks\.\d+\.mlp)\.layers\.0\.", r"\1.lin1."),
    (r"^(image_encoder\.trunk\.blocks\.\d+\.mlp)\.layers\.1\.", r"\1.lin2."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"image_encoder.neck.convs.\1."),
    (r"^sam_mask_decoder\.(conv_s[01])\.", r"image_encoder.neck.\1."),
    (r"^no_mem_embed$", "image_encoder.neck.no_mem_embed"),
    (r"^sam_mask_decoder\.(transformer\.layers\.\d+\.mlp)\.layers\.0\.", r"mask_decoder.\1.lin1."),
    (r"^sam_mask_decoder\.(transformer\.layers\.\d+\.mlp)\.layers\.1\.", r"mask_decoder.\1.lin2."),
    (r"^sam_(mask_decoder|prompt_encoder)\.", r"\1."),
)

# For video only: the memory, and the score of whether the object is visible.
_SAM2_VIDEO = (
    r"memory_attention\.|memory_encoder\.|maskmem_tpos_enc$|no_mem_pos_enc$|no_obj_ptr$|mask_downsample\."
    r"|obj_ptr_proj\.|sam_mask_decoder\.pred_obj_score_head\."
)
_SAM2_1_VIDEO = r"no_obj_embed_spatial$|obj_ptr_tpos_proj\."

_HUGGING_FACE_SAM2: Renames = (
    (r"^vision_encoder\.backbone\.(pos_embed(?:_window)?)$", r"image_encoder.trunk.positions.\1"),
    (r"^vision_encoder\.backbone\.patch_embed\.projection\.", "image_encoder.trunk.patch_embed.proj."),
    (r"^vision_encoder\.backbone\.(blocks\.\d+)\.layer_norm([12])\.", r"image_encoder.trunk.\1.norm\2."),
    (r"^vision_encoder\.backbone\.(blocks\.\d+\.mlp)\.proj_in\.", r"image_encoder.trunk.\1.lin1."),
    (r"^vision_encoder\.backbone\.(blocks\.\d+\.mlp)\.proj_out\.", r"image_encoder.trunk.\1.lin2."),
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.", "image_encoder.neck.convs."),
    (r"^mask_decoder\.(conv_s[01])\.", r"image_encoder.neck.\1."),
    (r"^no_memory_embedding$", "image_encoder.neck.no_mem_embed"),
    (r"^(mask_decoder\.transformer\..*)\.o_proj\.", r"\1.out_proj."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.proj_in\.", r"\1.lin1."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.proj_out\.", r"\1.lin2."),
    *_HUGGING_FACE_SAM,
)
_HUGGING_FACE_SAM2_VIDEO = (
    r"memory_attention\.|memory_encoder\.|memory_temporal_positional_encoding$|mask_downsample\."
    r"|no_memory_positional_encoding$|no_object_pointer$|object_pointer_proj\."
    r"|mask_decoder\.pred_obj_score_head\."
)
_HUGGING_FACE_SAM2_1_VIDEO = (
    r"occlusion_spatial_embedding_parameter$|temporal_positional_encoding_projection_layer\."
)
_HUGGING_FACE_SAM2_POINTS = (
    ("prompt_encoder.point_embeddings.weight", "prompt_encoder.point_embeddings.{}.weight"),
)


def _timm_repvit(old: str, new: str, depths: tuple[int, ...] = (2, 2, 14, 2)) -> Renames:
    """Map timm's RepViT under the prefix `old` to EdgeSAM's flat list of blocks under `new`.

    `depths` are the numbers of blocks per stage as timm counts them.
    """
    blocks = [("stem.conv1.", "0.0."), ("stem.conv2.", "0.2.")]
    index = 1
    for stage, depth in enumerate(depths):
        names = [f"stages_{stage}.blocks.{block}." for block in range(depth)]
        if stage:
            halving = f"stages_{stage}.downsample."
            blocks += [
                (f"{halving}spatial_downsample.", f"{index + 1}.token_mixer.0."),
                (f"{halving}channel_downsample.", f"{index + 1}.token_mixer.2."),
                (f"{halving}ffn.conv1.", f"{index + 1}.channel_mixer.m.0."),
                (f"{halving}ffn.conv2.", f"{index + 1}.channel_mixer.m.2."),
            ]
            names = [f"{halving}pre_block.", "", *names]
        for name in names:
            if name:
                blocks += [
                    (f"{name}token_mixer.", f"{index}.token_mixer.0."),
                    (f"{name}se.", f"{index}.token_mixer.1."),
                    (f"{name}channel_mixer.conv1.", f"{index}.channel_mixer.m.0."),
                    (f"{name}channel_mixer.conv2.", f"{index}.channel_mixer.m.2."),
                ]
            index += 1
    return tuple((f"^{re.escape(old + a)}", f"{new}.features.{b}") for a, b in blocks)


# EdgeTAM's decoder is SAM 2's.
_EDGETAM: Renames = (*_timm_repvit("image_encoder.trunk.body.", "image_encoder.trunk"), *_SAM2)
_HUGGING_FACE_EDGETAM: Renames = (
    *_timm_repvit("vision_encoder.backbone.timm_model.", "image_encoder.trunk"),
    *_HUGGING_FACE_SAM2,
)

# EfficientSAM's MLPs are SAM's under other names.
_EFFICIENT_SAM: Renames = (
    (r"\.mlp\.fc1\.", ".mlp.lin1."),
    (r"\.mlp\.fc2\.", ".mlp.lin2."),
    (r"\.mlp\.layers\.0\.0\.", ".mlp.lin1."),
    (r"\.mlp\.fc\.", ".mlp.lin2."),
    (r"^(mask_decoder\..*)\.layers\.(\d)\.0\.", r"\1.layers.\2."),
    (r"^(mask_decoder\..*)\.fc\.", r"\1.layers.2."),
    (r"^mask_decoder\.final_output_upscaling_layers\.0\.", "mask_decoder.output_upscaling."),
    (r"^mask_decoder\.final_output_upscaling_layers\.1\.0\.", "mask_decoder.output_upscaling.3."),
)

LAYOUTS = (
    Layout("published", ("sam", "slimsam", "sam_edge_tiny")),
    # The files still hold TinyViT's classifier.
    Layout("published", ("mobile_sam",), ignored=r"^image_encoder\.(head|norm_head)\."),
    Layout("published", ("sam_hq",), _SAM_HQ, r"^image_encoder\.(head|norm_head)\."),
    Layout("published", ("efficientvit_sam",)),
    # Some files hold a proposal head too.
    Layout("published", ("edge_sam",), ignored=r"^(fpn|rpn_head)\."),
    Layout("published", ("efficient_sam",), _EFFICIENT_SAM),
    # SAM 2 is SAM 2.1 without two video modules. A file without any of them matches both, which are the same
    # on images.
    Layout("published", ("sam2",), _SAM2, f"^({_SAM2_VIDEO})"),
    Layout("published", ("sam2.1",), _SAM2, f"^({_SAM2_VIDEO}|{_SAM2_1_VIDEO})"),
    Layout("published", ("edgetam",), _EDGETAM, rf"^({_SAM2_VIDEO}|spatial_perceiver\.)"),
    Layout("huggingface", ("sam", "slimsam"), _HUGGING_FACE_SAM),
    Layout(
        "huggingface",
        ("sam2",),
        _HUGGING_FACE_SAM2,
        f"^({_HUGGING_FACE_SAM2_VIDEO})",
        _HUGGING_FACE_SAM2_POINTS,
    ),
    Layout(
        "huggingface",
        ("sam2.1",),
        _HUGGING_FACE_SAM2,
        f"^({_HUGGING_FACE_SAM2_VIDEO}|{_HUGGING_FACE_SAM2_1_VIDEO})",
        _HUGGING_FACE_SAM2_POINTS,
    ),
    Layout(
        "huggingface",
        ("edgetam",),
        _HUGGING_FACE_EDGETAM,
        rf"^({_HUGGING_FACE_SAM2_VIDEO}|{_HUGGING_FACE_SAM2_1_VIDEO}|spatial_perceiver\.)",
        _HUGGING_FACE_SAM2_POINTS,
    ),
    Layout("huggingface", ("sam_hq",), _HUGGING_FACE_SAM_HQ),
)
