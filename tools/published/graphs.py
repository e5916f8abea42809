"""Exports the published modules as plain ONNX graphs, as `torch.onnx.export` writes them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tools.published import published


class LowResolutionMasks(nn.Module):
    """The published `SamOnnxModel` without its upscaling."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.model = published("utils.onnx").SamOnnxModel(sam, return_single_mask=False)
        self.model.mask_postprocessing = lambda masks, size: masks

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Its inputs without `orig_im_size` -> low_res_masks (1, 4, h, w), iou_predictions (1, 4)."""
        _, scores, masks = self.model(*given, torch.ones(2))
        return masks, scores


def write_published(sam: Any, folder: Path) -> None:
    """Write `encoder.onnx` and `decoder.onnx` of a published `Sam` to a folder; opset 17."""
    side, (height, width) = sam.image_encoder.img_size, sam.prompt_encoder.image_embedding_size
    embedding = torch.zeros(1, sam.prompt_encoder.embed_dim, height, width)
    mask = torch.zeros(1, 1, 4 * height, 4 * width)
    prompt = torch.zeros(1, 5, 2), torch.ones(1, 5), mask, torch.zeros(1)
    names = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input"]
    points = {1: "num_points"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            sam.image_encoder,
            (torch.zeros(1, 3, side, side),),
            str(folder / "encoder.onnx"),
            input_names=["images"],
            output_names=["image_embeddings"],
            opset_version=17,
            dynamo=False,
        )
        torch.onnx.export(
            LowResolutionMasks(sam),
            (embedding, *prompt),
            str(folder / "decoder.onnx"),
            input_names=names,
            output_names=["low_res_masks", "iou_predictions"],
            dynamic_axes={"point_coords": points, "point_labels": points},
            opset_version=17,
            dynamo=False,
        )
