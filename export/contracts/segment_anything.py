"""The decoder under the contract of `segment_anything.utils.onnx.SamOnnxModel`, to swap the file in an
existing app: one prompt a call, `orig_im_size` in, masks at that size out.

Inputs `image_embeddings` (1, C, h, w), `point_coords` (1, K, 2), `point_labels` (1, K), `mask_input`
(1, 1, 4h, 4w), `has_mask_input` (1,), `orig_im_size` (2,) height and width, all float32; outputs `masks`
(1, 4, H, W) logits, `iou_predictions` (1, 4), `low_res_masks` (1, 4, 4h, 4w). Points are in pixels of the
padded coordinate square and the caller adds the padding point, as published.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sam_edge.errors import SamEdgeError
from sam_edge.models.catalogue import Model

from ..graphs.onnx_edit import save
from . import Contract


def check_contract(model: Model) -> None:
    """Raise unless `model` fits the contract.

    Raises:
        SamEdgeError: images that are not padded, masks that are not four, or embeddings beside the image's.
    """
    if model.preprocess.resize != "longest_side" or model.mask_count != 4 or model.extra_embeddings:
        raise SamEdgeError(
            f"{model.name} cannot have SAM's published decoder contract, which is for images padded to a "
            "square, for four masks and for no other embeddings than the image's; export it without --compat"
        )


def write_published_decoder(source: Path, target: Path, model: Model) -> None:
    """Append the published upscaling to the decoder `source`.

    Raises:
        SamEdgeError: a model that does not fit the contract.
    """
    check_contract(model)
    proto = onnx.load(source)
    graph, side = proto.graph, float(model.coordinate_size)
    graph.node.extend(_upscaling())
    constants: dict[str, NDArray[Any]] = {
        "compat_side": np.array(side, np.float32),
        "compat_half": np.array(0.5, np.float32),
        "compat_square": np.array([side, side], np.int64),
        "compat_axes": np.array([2, 3], np.int64),
        "compat_start": np.array([0, 0], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.input.append(helper.make_tensor_value_info("orig_im_size", TensorProto.FLOAT, [2]))
    masks = helper.make_tensor_value_info("masks", TensorProto.FLOAT, ["num_prompts", 4, "height", "width"])
    outputs = {value.name: value for value in graph.output}
    order = [masks, outputs["iou_predictions"], outputs["low_res_masks"]]
    del graph.output[:]
    graph.output.extend(order)
    save(proto, target)


def _upscaling() -> list[onnx.NodeProto]:
    """To the square's size, without its padding, to the image's own size, as `mask_postprocessing`."""

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], name=f"compat_{output}", **attributes)

    def resize(given: str, height_width: str, output: str) -> list[onnx.NodeProto]:
        sizes = f"{output}_sizes"
        return [
            node("Concat", [f"{given}_head", height_width], sizes, axis=0),
            node(
                "Resize",
                [given, "", "", sizes],
                output,
                mode="linear",
                coordinate_transformation_mode="pytorch_half_pixel",
            ),
        ]

    return [
        # The long side becomes `side`; the other is rounded half up.
        node("ReduceMax", ["orig_im_size"], "compat_long", keepdims=0),
        node("Div", ["compat_side", "compat_long"], "compat_scale"),
        node("Mul", ["orig_im_size", "compat_scale"], "compat_scaled"),
        node("Add", ["compat_scaled", "compat_half"], "compat_added"),
        node("Floor", ["compat_added"], "compat_floored"),
        node("Cast", ["compat_floored"], "compat_resized", to=TensorProto.INT64),
        node("Cast", ["orig_im_size"], "compat_original", to=TensorProto.INT64),
        node("Shape", ["low_res_masks"], "low_res_masks_head", end=2),
        *resize("low_res_masks", "compat_square", "compat_padded"),
        node("Slice", ["compat_padded", "compat_start", "compat_resized", "compat_axes"], "compat_cropped"),
        node("Shape", ["compat_cropped"], "compat_cropped_head", end=2),
        *resize("compat_cropped", "compat_original", "masks"),
    ]


CONTRACT = Contract("segment-anything", 0, check_contract, write_published_decoder)
