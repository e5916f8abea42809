"""Builds the JSON of a manifest from values: the exporter's, the mock's and the tests'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..imaging.preprocess import InputRules
from .manifest import SCHEMA_VERSION, ModelInfo, PromptRules
from .variant import File, Graph, ParityReport, Tensor, Variant

# The published decoder's labels of points.
LABELS = {"background": 0, "foreground": 1, "box_top_left": 2, "box_bottom_right": 3, "padding": -1}

# A tensor's name and the axes of its shape.
Shape = tuple[str | int, ...]


@dataclass(frozen=True)
class MaskRules:
    """The masks and scores that a decoder returns for a prompt.

    Attributes:
        size: (h, w) of the low-resolution logits.
        threshold: logits above it belong to the mask.
        count: how many masks a prompt gives.
        first_multimask: index of the first mask for ambiguous prompts.
        scores: "predicted_iou" or "stability".
        low_res_limit: logits are clipped to plus and minus this; None where they are not.
        pred_iou_thresh, stability_score_thresh: everything-mode's defaults; None for SAM's.
    """

    size: tuple[int, int]
    threshold: float = 0.0
    count: int = 4
    first_multimask: int = 1
    scores: str = "predicted_iou"
    low_res_limit: float | None = None
    pred_iou_thresh: float | None = None
    stability_score_thresh: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        thresholds = {
            "pred_iou_thresh": self.pred_iou_thresh,
            "stability_score_thresh": self.stability_score_thresh,
        }
        return {
            "threshold": self.threshold,
            "count": self.count,
            "first_multimask": self.first_multimask,
            "scores": self.scores,
            "low_res_limit": self.low_res_limit,
            **{name: value for name, value in thresholds.items() if value is not None},
            "size": list(self.size),
        }


def manifest_json(
    *,
    sam_edge_version: str,
    model: ModelInfo,
    image_input: InputRules,
    prompt: PromptRules,
    mask: MaskRules,
    golden: File | None = None,
    variants: Sequence[Variant] = (),
) -> dict[str, Any]:
    """Build a manifest without its `integrity`, which `write_manifest` adds.

    Args:
        sam_edge_version: of the exporter.
        model: the model and its checkpoint.
        image_input: how an image becomes the encoder's input.
        prompt: how prompts are given to the decoder.
        mask: what the decoder makes of them.
        golden: the golden data's file; None to add it later.
        variants: the exports; none to add them later.
    """
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "sam_edge_version": sam_edge_version,
        "model": model.to_json(),
        "input": {
            "size": list(image_input.size),
            "resize": image_input.resize,
            "antialias": image_input.antialias,
            "color_order": "RGB",
            "mean": list(image_input.mean),
            "std": list(image_input.std),
            "pad_value": image_input.pad_value,
        },
        "prompt": {
            "coordinate_size": list(prompt.coordinate_size),
            "labels": dict(LABELS),
            "padding_point": prompt.padding_point,
            "num_points": prompt.num_points,
            "mask_prompt": prompt.mask_prompt,
            **({"text_embeddings": True} if prompt.text_embeddings else {}),
        },
        "mask": mask.to_json(),
    }
    if golden is not None:
        data["golden"] = golden.to_json()
    if variants:
        data["variants"] = [variant.to_json() for variant in variants]
    return data


def float_graph(path: str, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Graph:
    """Describe a graph whose tensors are all float32, each given as its name and its axes."""
    inside, outside = (
        tuple(Tensor(str(shape[0]), "float32", shape[1:]) for shape in side) for side in (inputs, outputs)
    )
    return Graph(path, inside, outside)


def unmeasured_parity() -> ParityReport:
    """Return a parity report for a variant that nobody compares with a reference: a mock's."""
    zeros = dict.fromkeys(("mean_iou", "min_iou"), 0.0)
    return ParityReport(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1, zeros, True)
