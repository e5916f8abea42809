"""Write the Python runtime's results on a bundle, with which the tests of web/ compare.

From the repository's root: `python web/tests/reference.py BUNDLE OUT`. OUT/reference.json refers to arrays by
their file names in OUT. Images are RGB uint8; masks are packed bits, 8 pixels per byte.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam_edge import SamAutomaticMaskGenerator, load
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.bundle.variant import Variant
from sam_edge.errors import PromptError
from sam_edge.imaging.preprocess import InputRules, preprocess
from sam_edge.runtime.prompts import encode_prompts
from sam_edge.types import Prompts

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "models" / "photos" / "astronaut.jpg"
GRID = 12

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# (H, W) of an image, and the rules for its preprocessing.
_PREPROCESSED = [
    ((37, 53), InputRules((64, 64), "longest_side", True, _MEAN, _STD, 0.0)),
    ((211, 90), InputRules((64, 64), "longest_side", True, _MEAN, _STD, 0.0)),
    ((1, 300), InputRules((64, 64), "longest_side", True, _MEAN, _STD, 0.5)),
    ((64, 64), InputRules((64, 64), "longest_side", True, _MEAN, _STD, 0.0)),
    ((97, 131), InputRules((96, 64), "stretch", True, _MEAN, _STD, 0.0)),
    ((97, 131), InputRules((48, 64), "stretch", False, _MEAN, _STD, 0.0)),
    ((20, 30), InputRules((48, 64), "stretch", False, _MEAN, _STD, 0.0)),
]
_INVALID_PROMPTS: list[dict[str, Any]] = [
    {"points": [[400.5, 20]]},
    {"points": [[-1, 20]]},
    {"points": [[5, 5]], "labels": [7]},
    {"box": [30, 30, 20, 40]},
    {"box": [0, 0, 101, 40]},
    {"points": [[5, 5]], "labels": [-1]},
    {},
]


class Writer:
    """Writes arrays to numbered files of a folder."""

    def __init__(self, out: Path) -> None:
        self.out, self.count = out, 0

    def __call__(self, array: Any) -> str:
        """Write the array's bytes; return the file's name."""
        name = f"{self.count}.bin"
        self.count += 1
        (self.out / name).write_bytes(np.ascontiguousarray(array).tobytes())
        return name


def main(bundle: Path, out: Path) -> None:
    """Write reference.json and the arrays of `bundle` to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write = Writer(out)
    opened = open_bundle(bundle)
    golden = read_golden(opened.check_golden())
    reference: dict[str, Any] = {
        "model_id": opened.manifest.model_id,
        "images": [
            {"width": image.shape[1], "height": image.shape[0], "rgb": write(image)}
            for image in golden.images
        ],
        "inputs": [write(preprocess(image, opened.manifest.input)[0]) for image in golden.images],
        "preprocessed": [_preprocessed(size, rules, write) for size, rules in _PREPROCESSED],
        "bad_prompts": [_rejected(prompt, opened.manifest) for prompt in _INVALID_PROMPTS],
        "variants": {},
    }
    # Variants for browsers are compared with the results of the first variant of the same precision.
    made: dict[str, Any] = {}
    for variant in opened.manifest.variants:
        precision = variant.precision
        if variant.format == "onnx":
            if precision not in made:
                made[precision] = _variant(bundle, variant, golden, write)
            reference["variants"][variant.id] = made[precision]
    (out / "reference.json").write_text(json.dumps(reference))


def _preprocessed(size: tuple[int, int], rules: InputRules, write: Writer) -> dict[str, Any]:
    image = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), np.uint8)
    return {
        "image": {"width": size[1], "height": size[0], "rgb": write(image)},
        "rules": {
            "size": rules.size,
            "resize": rules.resize,
            "antialias": rules.antialias,
            "mean": rules.mean,
            "std": rules.std,
            "pad_value": rules.pad_value,
        },
        "images": write(preprocess(image, rules)[0]),
    }


def _rejected(prompt: dict[str, Any], manifest: Any) -> dict[str, Any]:
    given = Prompts(prompt.get("points"), prompt.get("labels"), prompt.get("box"))
    try:
        encode_prompts(given, (80, 100), (80, 100), manifest.prompt, manifest.mask_size)
    except PromptError as error:
        return {"prompt": prompt, "message": str(error)}
    raise AssertionError(f"{prompt} should be refused")


def _variant(bundle: Path, variant: Variant, golden: Any, write: Writer) -> dict[str, Any]:
    sam = load(bundle, backend="onnxruntime", precision=variant.precision, device="cpu")
    embeddings = [sam.encode(image) for image in golden.images]
    prompts = []
    for prompt in golden.prompts:
        given = (prompt.point_coords, prompt.point_labels, prompt.box, prompt.mask_input)
        many = sam.predict(embeddings[prompt.image_index], *given)
        one = sam.predict(embeddings[prompt.image_index], *given, multimask_output=False)
        prompts.append(
            {
                "image": prompt.image_index,
                "points": _list(prompt.point_coords),
                "labels": _list(prompt.point_labels),
                "box": _list(prompt.box),
                "mask_input": None if prompt.mask_input is None else write(prompt.mask_input),
                "masks": write(np.packbits(many.masks)),
                "count": many.masks.shape[1],
                "scores": many.scores[0].tolist(),
                "single": write(np.packbits(one.masks)),
            }
        )
    photo = np.array(Image.open(PHOTO).convert("RGB"))
    embedding = sam.encode(photo)
    point, box = [226.0, 121.0], [100.0, 20.0, 400.0, 500.0]
    return {
        "gate": variant.parity.gate,
        "embeddings": [_arrays(embedding, write) for embedding in embeddings],
        "prompts": prompts,
        "everything": [_everything(sam, image) for image in golden.images],
        "photo": {
            "width": photo.shape[1],
            "height": photo.shape[0],
            "rgb": write(photo),
            "embedding": _arrays(embedding, write),
            "point": point,
            "point_mask": write(np.packbits(sam.predict(embedding, [point]).best()[0])),
            "box": box,
            "box_mask": write(np.packbits(sam.predict(embedding, boxes=box).best()[0])),
            "everything": _everything(sam, photo, 16),
        },
    }


def _arrays(embedding: Any, write: Writer) -> dict[str, Any]:
    return {name: {"dims": array.shape, "data": write(array)} for name, array in embedding.arrays.items()}


def _everything(sam: Any, image: Any, grid: int = GRID) -> list[dict[str, Any]]:
    rules = sam.manifest
    generator = SamAutomaticMaskGenerator(
        sam,
        points_per_side=grid,
        pred_iou_thresh=rules.pred_iou_thresh,
        stability_score_thresh=rules.stability_score_thresh,
        output_mode="coco_rle",
    )
    return list(generator.generate(image))


def _list(array: Any) -> Any:
    return None if array is None else np.asarray(array, np.float64).tolist()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
