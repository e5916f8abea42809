"""A whole bundle in a few kilobytes: an encoder and a decoder of one or two operators each.

The encoder averages patches of 8 x 8 pixels. The decoder's masks are the sum of the embedding's
channels, moved up or down by the prompt, so that masks depend on the image and on the prompt.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from sam_edge.bundle.build import MaskRules, float_graph, manifest_json
from sam_edge.bundle.golden import Golden, GoldenPrompt, sample_embedding, write_golden
from sam_edge.bundle.manifest import CheckpointInfo, ModelInfo, PromptRules, write_manifest
from sam_edge.bundle.variant import File, ParityReport, Variant
from sam_edge.imaging.preprocess import InputRules
from sam_edge.system.files import sha256_file
from sam_edge.types import Prompts

SIDE, GRID = 64, 8
SHA = "0123456789abcdef" * 4


def _tensor(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _save(path, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, "toy", inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _constant(name, values):
    values = np.asarray(values)
    kind = TensorProto.INT64 if values.dtype == np.int64 else TensorProto.FLOAT
    return helper.make_tensor(name, kind, values.shape, values.ravel())


def write_encoder(path):
    pool = helper.make_node(
        "AveragePool", ["images"], ["image_embeddings"], kernel_shape=[8, 8], strides=[8, 8]
    )
    _save(
        path,
        [pool],
        [_tensor("images", 1, 3, SIDE, SIDE)],
        [_tensor("image_embeddings", 1, 3, GRID, GRID)],
    )


def _node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], **attributes)


def _prompt_nodes():
    """To `one` (N, 1, 8, 8), which masks are levels of, and iou_predictions."""
    return [
        # One number a prompt: its labels and the x of its points.
        _node("ReduceSum", ["point_labels", "last"], "labels", keepdims=1),  # (N, 1)
        _node("ReduceMean", ["point_coords", "points_and_xy"], "at", keepdims=0),  # (N,)
        _node("Reshape", ["at", "column"], "at_column"),
        _node("Mul", ["at_column", "small"], "at_small"),
        _node("Add", ["labels", "at_small"], "prompt"),  # (N, 1)
        _node("Reshape", ["prompt", "n111"], "shift"),
        _node("Reshape", ["has_mask_input", "n111"], "has_mask"),
        _node("Mul", ["mask_input", "has_mask"], "given"),  # (1, 1, 8, 8)
        _node("ReduceSum", ["image_embeddings", "channels"], "picture", keepdims=1),  # (1, 1, 8, 8)
        _node("Add", ["picture", "shift"], "shifted"),
        _node("Add", ["shifted", "given"], "one"),
        _node("Mul", ["prompt", "small"], "prompt_small"),
        _node("Add", ["prompt_small", "scores"], "iou_predictions"),  # (N, 4)
    ]


def _constants():
    return [
        _constant("last", np.array([1])),
        _constant("points_and_xy", np.array([1, 2])),
        _constant("column", np.array([-1, 1])),
        _constant("n111", np.array([-1, 1, 1, 1])),
        _constant("channels", np.array([1])),
        _constant("small", np.array([0.01], np.float32)),
        _constant("levels", np.array([0, -0.5, 0.25, 0.5], np.float32).reshape(1, 4, 1, 1)),
        _constant("scores", np.array([[0.5, 0.6, 0.9, 0.7]], np.float32)),
        _constant("tokens", np.array([-1, GRID * GRID, 1])),
        _constant("grid", np.array([-1, 1, GRID, GRID])),
        _constant("n411", np.array([-1, 4, 1, 1])),
        _constant("n41", np.array([-1, 4, 1])),
        _constant("none", np.array([0], np.float32)),
    ]


def _write(path, nodes, sides):
    read = {name for node in nodes for name in node.input}
    constants = [one for one in _constants() if one.name in read]
    _save(path, nodes, *([_tensor(*one) for one in side] for side in sides), constants)


def write_decoder(path):
    _write(path, [*_prompt_nodes(), _node("Add", ["one", "levels"], "low_res_masks")], DECODER)


def write_stages(scorer, upscaler):
    """The same decoder in two: tokens are `one`, weights the levels."""
    values = [
        _node("Reshape", ["one", "tokens"], "image_tokens"),
        _node("Mul", ["shift", "none"], "nothing"),
        _node("Add", ["nothing", "levels"], "each"),  # (N, 4, 1, 1)
        _node("Reshape", ["each", "n41"], "mask_weights"),
    ]
    _write(scorer, [*_prompt_nodes(), *values], SCORER)
    masks = [
        _node("Reshape", ["image_tokens", "grid"], "one"),
        _node("Reshape", ["mask_weights", "n411"], "each"),
        _node("Add", ["one", "each"], "low_res_masks"),
    ]
    _write(upscaler, masks, UPSCALER)


DECODER = (
    [
        ("image_embeddings", 1, 3, GRID, GRID),
        ("point_coords", "num_prompts", "num_points", 2),
        ("point_labels", "num_prompts", "num_points"),
        ("mask_input", 1, 1, GRID, GRID),
        ("has_mask_input", 1),
    ],
    [("low_res_masks", "num_prompts", 4, GRID, GRID), ("iou_predictions", "num_prompts", 4)],
)
STAGE_VALUES = [("image_tokens", "num_prompts", GRID * GRID, 1), ("mask_weights", "num_prompts", 4, 1)]
SCORER = DECODER[0], [DECODER[1][1], *STAGE_VALUES]
UPSCALER = STAGE_VALUES, [DECODER[1][0]]
PARTS = ("encoder", "decoder", "scorer", "upscaler")


def picture(height=48, width=80):
    """A bright disc on a dark ground, (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 3) ** 2
    return np.where(disc[..., None], (220, 200, 210), (40, 30, 20)).astype(np.uint8)


def _file(root, name):
    path = root / name
    return {"path": name, "sha256": sha256_file(path), "bytes": path.stat().st_size}


def manifest_data(root: Path) -> dict:
    folder = "onnx-fp32"
    encoder = [("images", 1, 3, SIDE, SIDE)], [("image_embeddings", 1, 3, GRID, GRID)]
    graphs = dict(zip(PARTS, (encoder, DECODER, SCORER, UPSCALER), strict=True))
    variant = Variant(
        id=folder,
        format="onnx",
        precision="fp32",
        **{name: float_graph(f"{folder}/{name}.onnx", *sides) for name, sides in graphs.items()},
        files=tuple(File(**_file(root, f"{folder}/{name}.onnx")) for name in PARTS),
        opset=18,
        tools={"onnx": onnx.__version__},
        parity=ParityReport(
            mean_iou=1.0,
            p5_iou=1.0,
            min_iou=1.0,
            boundary_iou=1.0,
            all_masks_mean_iou=1.0,
            all_masks_min_iou=1.0,
            max_score_difference=0.0,
            embedding_relative_error=0.0,
            num_prompts=3,
            gate={"mean_iou": 0.999, "min_iou": 0.99},
            passed=True,
        ),
    )
    return manifest_json(
        sam_edge_version="0.1.0",
        model=ModelInfo("toy", "toy", 0, CheckpointInfo("toy.pth", SHA, 1, "published"), "Apache-2.0"),
        image_input=InputRules(
            (SIDE, SIDE), "longest_side", True, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 0.0
        ),
        prompt=PromptRules((SIDE, SIDE), "without_box", None),
        mask=MaskRules((GRID, GRID)),
        golden=File(**_file(root, "golden.npz")),
        variants=[variant],
    )


def write_bundle(root: Path) -> Path:
    """Write the bundle; its golden masks are made by the graphs themselves."""
    from sam_edge import load

    (root / "onnx-fp32").mkdir(parents=True)
    write_encoder(root / "onnx-fp32/encoder.onnx")
    write_decoder(root / "onnx-fp32/decoder.onnx")
    write_stages(root / "onnx-fp32/scorer.onnx", root / "onnx-fp32/upscaler.onnx")
    write_golden(root / "golden.npz", Golden([], [], []))
    write_manifest(root, manifest_data(root))

    image = picture()
    point, label = np.array([[40.0, 24.0]], np.float32), np.array([1], np.float32)
    box = np.array([20, 8, 60, 40], np.float32)
    logits = np.full((1, GRID, GRID), 0.5, np.float32)
    asked = [(point, label, None, None), (None, None, box, None), (point, label, box, logits)]
    with load(root) as sam:
        embedding = sam.encode(image)
        prompts = []
        for coords, labels, corners, mask_input in asked:
            found = sam._segment(embedding, Prompts(coords, labels, corners, mask_input), "all")
            answer = found.masks[0], found.scores[0]
            prompts.append(GoldenPrompt(0, coords, labels, corners, mask_input, *answer))
    sample = {name: sample_embedding(array) for name, array in embedding.arrays.items()}
    write_golden(root / "golden.npz", Golden([image], [sample], prompts))
    write_manifest(root, manifest_data(root))
    return root


def rewrite_manifest(root: Path, change) -> None:
    """Let `change` alter the manifest, with a matching `integrity`, schema unchecked."""
    from sam_edge.bundle.manifest import integrity

    path = root / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    data["integrity"] = integrity(data)
    path.write_text(json.dumps(data))
