"""Test support for apps: a `Sam` without a bundle or a runtime, whose masks follow the prompts.

from sam_edge.testing import mock_sam

sam = mock_sam()
embedding = sam.encode(image)
sam.predict(embedding, boxes=[[10, 20, 80, 60]]).masks   # the box, filled
"""

from __future__ import annotations

from pathlib import Path

from . import __version__
from .backends.mock import mock_session
from .bundle.build import MaskRules, float_graph, manifest_json, unmeasured_parity
from .bundle.bundle import Bundle
from .bundle.manifest import CheckpointInfo, Manifest, ModelInfo, PromptRules, integrity
from .bundle.variant import File, Variant
from .imaging.preprocess import InputRules
from .runtime.opener import OpenedGraphs
from .runtime.sam import Sam

__all__ = ["mock_sam"]

_SHA = "0" * 64


def mock_sam(size: int = 1024) -> Sam:
    """Return a ready `Sam` on the mock backend; `sam_edge.backends.mock` says which masks it makes.

    Args:
        size: the longer side in pixels that images are resized to; masks are drawn at a quarter of it. A
            smaller one is faster and coarser.

    Example:
        sam = mock_sam(256)
        masks = sam.predict(sam.encode(image), point_coords=[[40, 30]]).masks
    """
    manifest = _manifest(size)
    (variant,) = manifest.variants
    sessions = {
        name: mock_session(manifest, graph)
        for name, graph in (("encoder", variant.encoder), ("decoder", variant.decoder))
    }
    return Sam(OpenedGraphs(Bundle(Path("mock"), manifest), variant, "mock", sessions))


def _manifest(size: int) -> Manifest:
    """Build a valid manifest whose files do not exist."""
    grid, low = max(1, size // 16), max(1, size // 4)
    embedding = ("image_embeddings", 1, 1, grid, grid)
    variant = Variant(
        id="onnx-fp32",
        format="onnx",
        precision="fp32",
        encoder=float_graph("onnx-fp32/encoder.onnx", [("images", 1, 3, size, size)], [embedding]),
        decoder=float_graph(
            "onnx-fp32/decoder.onnx",
            [
                embedding,
                ("point_coords", "num_prompts", "num_points", 2),
                ("point_labels", "num_prompts", "num_points"),
                ("mask_input", 1, 1, low, low),
                ("has_mask_input", 1),
            ],
            [("low_res_masks", "num_prompts", 4, low, low), ("iou_predictions", "num_prompts", 4)],
        ),
        files=tuple(File(f"onnx-fp32/{name}.onnx", _SHA, 0) for name in ("encoder", "decoder")),
        parity=unmeasured_parity(),
    )
    data = manifest_json(
        sam_edge_version=__version__,
        model=ModelInfo("mock", "mock", 0, CheckpointInfo("mock", _SHA, 0, "published"), "Apache-2.0"),
        image_input=InputRules(
            (size, size), "longest_side", True, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 0.0
        ),
        prompt=PromptRules((size, size), "without_box", None),
        mask=MaskRules((low, low)),
        golden=File("golden.npz", _SHA, 0),
        variants=[variant],
    )
    return Manifest({**data, "integrity": integrity(data)})
