"""A `Sam` for the tests of an app: no bundle, no runtime, masks that follow the prompts.

sam = mock_sam()
embedding = sam.encode(image)
sam.predict(embedding, boxes=[[10, 20, 80, 60]]).masks   # the box, filled
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..backends.mock import mock_session
from ..bundle.bundle import Bundle
from ..bundle.manifest import SCHEMA_VERSION, Manifest, integrity
from .sam import Sam

_SHA = "0" * 64


def mock_sam(size: int = 1024) -> Sam:
    """A ready `Sam`, on the mock backend: see `sam_edge.backends.mock` for the masks that it makes.

    Args:
        size: the longer side in pixels that images are resized to; masks are drawn at a quarter of it. A
            smaller one is faster and rougher.
    """
    manifest = Manifest(_manifest(size))
    variant = manifest.variants[0]
    encoder, decoder = (mock_session(manifest, graph) for graph in (variant.encoder, variant.decoder))
    return Sam(Bundle(Path("mock"), manifest), variant, "mock", encoder, decoder)


def _manifest(size: int) -> dict[str, Any]:
    """A whole manifest, of files that are nowhere."""
    from .. import __version__

    grid, mask = max(1, size // 16), max(1, size // 4)

    def file(path: str) -> dict[str, Any]:
        return {"path": path, "sha256": _SHA, "bytes": 0}

    def graph(name: str, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> dict[str, Any]:
        sides = (
            [{"name": tensor, "dtype": "float32", "shape": shape} for tensor, shape in side.items()]
            for side in (inputs, outputs)
        )
        return {"path": f"onnx-fp32/{name}.onnx", **dict(zip(("inputs", "outputs"), sides, strict=True))}

    embedding: dict[str, list[Any]] = {"image_embeddings": [1, 1, grid, grid]}
    prompts: dict[str, list[Any]] = {
        "point_coords": ["num_prompts", "num_points", 2],
        "point_labels": ["num_prompts", "num_points"],
        "mask_input": [1, 1, mask, mask],
        "has_mask_input": [1],
    }
    masks: dict[str, list[Any]] = {
        "low_res_masks": ["num_prompts", 4, mask, mask],
        "iou_predictions": ["num_prompts", 4],
    }
    parity = ("mean_iou", "p5_iou", "min_iou", "boundary_iou", "all_masks_mean_iou", "all_masks_min_iou")
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "sam_edge_version": __version__,
        "model": {
            "family": "mock",
            "name": "mock",
            "parameters": 0,
            "checkpoint": {"file": "mock", "sha256": _SHA, "bytes": 0, "layout": "published"},
            "license": "Apache-2.0",
        },
        "input": {
            "size": [size, size],
            "resize": "longest_side",
            "antialias": True,
            "color_order": "RGB",
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "pad_value": 0.0,
        },
        "prompt": {
            "coordinate_size": [size, size],
            "labels": {
                "background": 0,
                "foreground": 1,
                "box_top_left": 2,
                "box_bottom_right": 3,
                "padding": -1,
            },
            "padding_point": "without_box",
            "num_points": None,
            "mask_prompt": True,
        },
        "mask": {
            "threshold": 0.0,
            "count": 4,
            "first_multimask": 1,
            "scores": "predicted_iou",
            "low_res_limit": None,
            "size": [mask, mask],
        },
        "golden": file("golden.npz"),
        "variants": [
            {
                "id": "onnx-fp32",
                "format": "onnx",
                "precision": "fp32",
                "opset": None,
                "deployment_target": None,
                "files": [file("onnx-fp32/encoder.onnx"), file("onnx-fp32/decoder.onnx")],
                "encoder": graph("encoder", {"images": [1, 3, size, size]}, embedding),
                "decoder": graph("decoder", embedding | prompts, masks),
                "higher_precision_ops": [],
                "calibration_sha256": None,
                "tools": {},
                "parity": {
                    **dict.fromkeys(parity, 0.0),
                    "max_score_difference": 0.0,
                    "embedding_relative_error": 0.0,
                    "num_prompts": 1,
                    "gate": {"mean_iou": 0.0, "min_iou": 0.0},
                    "passed": True,
                },
            }
        ],
    }
    return {**data, "integrity": integrity(data)}
