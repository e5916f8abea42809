"""Writes golden outputs of the published code of SAM 2 and EdgeTAM with seeded weights.

The files are `golden/sam2.npz` and `golden/edgetam.npz`:

    pip download --no-deps --no-binary :all: sam2==1.1.0 && tar xf sam2-1.1.0.tar.gz
    python -m tools.golden.make_sam2 sam2 sam2-1.1.0

    git clone https://github.com/facebookresearch/EdgeTAM
    pip download --no-deps timm==1.0.31 && unzip -d TIMM timm-1.0.31-py3-none-any.whl
    python -m tools.golden.make_sam2 edgetam EdgeTAM TIMM

Neither can be installed beside this project's PyTorch: they require torchvision, which the parts used here do
not need. Models are built from the published configurations, with the options that `build_sam2` adds, and run
by the published image predictor. Weights are made from a seed and not stored. The files have samples of the
outputs, and the names and shapes of the published checkpoints.
"""

import importlib
import json
import math
import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

from tools.shared.commands import tool_parser

GOLDEN = Path(__file__).parents[2] / "tests/export/golden"
SAMPLES = 1024
# Name in the catalogue -> published configuration. The outputs are those of the first.
CONFIGS = {
    "sam2": {
        "sam2.1_hiera_tiny": "sam2.1/sam2.1_hiera_t",
        "sam2.1_hiera_small": "sam2.1/sam2.1_hiera_s",
        "sam2.1_hiera_base_plus": "sam2.1/sam2.1_hiera_b+",
        "sam2.1_hiera_large": "sam2.1/sam2.1_hiera_l",
        "sam2_hiera_tiny": "sam2/sam2_hiera_t",
        "sam2_hiera_small": "sam2/sam2_hiera_s",
        "sam2_hiera_base_plus": "sam2/sam2_hiera_b+",
        "sam2_hiera_large": "sam2/sam2_hiera_l",
    },
    "edgetam": {"edgetam": "edgetam"},
}
STAND_INS = (
    *("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.ops"),
    *("torchvision.ops.misc", "torchvision.datasets", "omegaconf", "iopath", "iopath.common"),
    *("iopath.common.file_io", "hydra", "hydra.utils", "hydra.core", "hydra.core.global_hydra"),
)


def seeded_weights(shapes):
    """Weights by name that keep signals alive, the same with every version of every package."""
    random, weights = np.random.default_rng(31), {}
    for name, shape in sorted(shapes.items()):
        noise = random.standard_normal(shape).astype(np.float32)
        if name.endswith("num_batches_tracked"):
            value = np.zeros(shape, np.int64)
        elif name.endswith("running_var"):
            # Branches of a residual trunk, which would blow its values up.
            damped = re.search(r"token_mixer|(mixer|ffn)\.conv2|mixer\.m\.2", name)
            value = np.exp(0.3 * noise) * (25 if damped else 1)
        elif "gaussian" in name or "token" in name:
            value = noise
        elif len(shape) == 1 and name.endswith("weight"):
            value = 1 + 0.2 * noise
        elif len(shape) == 1 or ("embed" in name and "proj" not in name):
            value = 0.3 * noise
        else:
            value = noise / math.prod(shape[1:]) ** 0.5
        if "q_proj" in name or "k_proj" in name:
            # Attention that is nearly a choice of one token would blow rounding errors up.
            value = value * 0.3
        if name.endswith("hypernetworks_mlps.0.layers.2.weight"):
            # So that some single masks are stable and some are not.
            value = value * 5.8
        weights[name] = torch.from_numpy(np.asarray(value))
    return weights


def image():
    """A random normalised image, (1, 3, 1024, 1024)."""
    noise = np.random.default_rng(32).standard_normal((1, 3, 1024, 1024))
    return torch.from_numpy(noise.astype(np.float32))


def prompts():
    """Points, labels, boxes and low-resolution masks of two prompts, by kind."""
    points = torch.tensor([[[130.0, 41.0], [900.0, 399.0]], [[5.0, 707.0], [520.0, 1000.0]]])
    labels = torch.tensor([[1, 0], [1, 1]])
    boxes = torch.tensor([[100.0, 20.0, 700.0, 530.0], [50.0, 600.0, 950.0, 1023.0]])
    masks = np.random.default_rng(33).standard_normal((2, 1, 256, 256)).astype(np.float32)
    return {
        "points": (points, labels, None, None),
        "box": (None, None, boxes, None),
        "points_and_box": (points, labels, boxes, None),
        "points_and_mask": (points, labels, None, torch.from_numpy(4 * masks)),
    }


def sample(tensor):
    """At most `SAMPLES` values of a tensor, evenly spread."""
    flat = tensor.detach().numpy().ravel()
    return flat[np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(np.int64)]


def unpacked(stored):
    """The shapes of a golden file, by model."""
    return {
        name: {key: tuple(shape) for key, shape in shapes.items()}
        for name, shapes in json.loads(str(stored["shapes"])).items()
    }


class _NoTransforms:
    """Replaces the predictor's resizing, which needs torchvision; coordinates are the encoder's pixels."""

    def __call__(self, _):
        return image()[0]

    def transform_coords(self, coords, **_):
        return coords

    def transform_boxes(self, boxes, **_):
        return boxes.reshape(-1, 2, 2)

    def postprocess_masks(self, masks, _):
        return masks


def _build(config):
    """Build an object from a published configuration, like `instantiate` of hydra."""
    if isinstance(config, list):
        return [_build(value) for value in config]
    if not isinstance(config, dict):
        # YAML 1.1 has no 1e-6, but hydra's does.
        return float(config) if re.fullmatch(r"\d+e-\d+", str(config)) else config
    module, _, name = config["_target_"].rpartition(".")
    arguments = {key: _build(value) for key, value in config.items() if key != "_target_"}
    return getattr(importlib.import_module(module), name)(**arguments)


def _model(source, name):
    import yaml

    config = yaml.safe_load((source / "sam2" / "configs" / f"{name}.yaml").read_text())["model"]
    model = _build(config)
    # The other options that `build_sam2` sets are the defaults.
    model.sam_mask_decoder.dynamic_multimask_via_stability = True
    return model.eval()


def _shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@torch.no_grad()
def _outputs(model):
    """Samples of the outputs of the published predictor."""
    module = importlib.import_module("sam2.sam2_image_predictor")
    module.SAM2Transforms = lambda **_: _NoTransforms()
    model.load_state_dict(seeded_weights(_shapes(model)))
    predictor = module.SAM2ImagePredictor(model)
    predictor.set_image(np.zeros((1024, 1024, 3), np.uint8))
    features = predictor._features
    found = {"image_embeddings": sample(features["image_embed"])}
    for index, level in enumerate(features["high_res_feats"]):
        found[f"high_res_feats_{index}"] = sample(level)
    for kind, (points, labels, boxes, masks) in prompts().items():
        boxes = None if boxes is None else boxes.reshape(-1, 2, 2)
        for multimask in (True, False):
            logits, scores, _ = predictor._predict(points, labels, boxes, masks, multimask, True)
            found[f"{kind}/{multimask}/masks"] = sample(logits)
            found[f"{kind}/{multimask}/scores"] = scores.numpy()
            print(kind, multimask, [round(float(x.std()), 3) for x in logits.flatten(0, 1)], scores.tolist())
    return found


@torch.no_grad()
def _hugging_face_edgetam():
    """Names and shapes of Hugging Face's whole EdgeTAM, and samples of its outputs for images."""
    from transformers import (
        EdgeTamConfig,
        EdgeTamModel,
        EdgeTamVideoConfig,
        EdgeTamVideoModel,
        TimmWrapperConfig,
    )

    options = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    backbone = TimmWrapperConfig(architecture="repvit_m1", model_args=options).to_dict()
    model = EdgeTamModel(
        EdgeTamConfig(vision_config={"model_type": "edgetam_vision_model", "backbone_config": backbone})
    )
    video = {
        "enable_occlusion_spatial_embedding": False,
        "enable_temporal_pos_encoding_for_object_pointers": False,
    }
    with torch.device("meta"):
        whole = _shapes(EdgeTamVideoModel(EdgeTamVideoConfig(**video)))
    # Its trunk is another one unless told so.
    parts = {key: shape for key, shape in whole.items() if not key.startswith("vision_encoder.")}
    shapes = parts | _shapes(model)
    weights = seeded_weights(shapes)
    shared = "prompt_encoder.shared_embedding.positional_embedding"
    weights["shared_image_embedding.positional_embedding"] = weights[shared]
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    levels = model.eval().get_image_embeddings(image())
    found = {f"embeddings_{index}": sample(level) for index, level in enumerate(levels)}
    points, labels, _, _ = prompts()["points"]
    for multimask in (True, False):
        out = model(
            image_embeddings=levels,
            input_points=points[None],
            input_labels=labels[None],
            multimask_output=multimask,
        )
        found[f"{multimask}/masks"] = sample(out.pred_masks)
        found[f"{multimask}/scores"] = out.iou_scores[0].numpy()
    return shapes, found


def main(family, source, *others):
    """Write the golden file of `family`."""
    for name in STAND_INS:
        sys.modules[name] = MagicMock(__spec__=ModuleSpec(name, None))
    sys.path[:0] = [source, *others]
    if family == "edgetam":
        models = importlib.import_module("timm.models")
        create = models.create_model
        models.create_model = lambda name, pretrained, **options: create(name, **options)
    stored, shapes = {}, {}
    for index, (name, config) in enumerate(CONFIGS[family].items()):
        model = _model(Path(source), config)
        shapes[name] = _shapes(model)
        if index == 0:
            stored |= _outputs(model)
    if family == "edgetam":
        shapes["huggingface"], found = _hugging_face_edgetam()
        stored |= {f"huggingface/{key}": value for key, value in found.items()}
    stored["shapes"] = np.array(json.dumps(shapes))
    GOLDEN.mkdir(exist_ok=True)
    path = GOLDEN / f"{family}.npz"
    np.savez_compressed(path, **stored)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    parser = tool_parser("golden.make_sam2", __doc__)
    parser.add_argument("family", choices=CONFIGS)
    parser.add_argument("source")
    parser.add_argument("others", nargs="*", metavar="OTHER", help="another folder with sources")
    args = parser.parse_args()
    main(args.family, args.source, *args.others)
