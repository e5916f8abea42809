"""Export the published decoder of `segment_anything`, with the settings of its scripts/export_onnx_model.py.

`npm run latency -- --published FILE` compares with it. From the repository's root:
`python web/scripts/published_decoder.py CHECKPOINT FILE`; the model family must use SAM's mask decoder.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

from tools.published import published, published_around


def main(checkpoint: Path, target: Path) -> None:
    """Export the decoder of `checkpoint` to the ONNX file `target`."""
    sam = published_around(checkpoint)
    model = published("utils.onnx").SamOnnxModel(sam, return_single_mask=False)
    dim, (side, _) = sam.prompt_encoder.embed_dim, sam.prompt_encoder.image_embedding_size
    inputs = {
        "image_embeddings": torch.randn(1, dim, side, side),
        "point_coords": torch.randint(0, 1024, (1, 5, 2)).float(),
        "point_labels": torch.randint(0, 4, (1, 5)).float(),
        "mask_input": torch.randn(1, 1, 4 * side, 4 * side),
        "has_mask_input": torch.tensor([1.0]),
        "orig_im_size": torch.tensor([1500.0, 2250.0]),
    }
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            str(target),
            opset_version=17,
            dynamo=False,
            input_names=list(inputs),
            output_names=["masks", "iou_predictions", "low_res_masks"],
            dynamic_axes={"point_coords": {1: "num_points"}, "point_labels": {1: "num_points"}},
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
