"""Writes golden outputs of EfficientSAM's published code with seeded weights: `golden/efficient_sam.npz`.

The code is github.com/yformer/EfficientSAM (Apache-2.0), which is not published as a package:

    git clone https://github.com/yformer/EfficientSAM
    python -m tools.golden.make_efficient_sam EfficientSAM
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

from tools.golden.seeded import sampled, seeded_image, seeded_prompts, seeded_weights
from tools.shared.commands import tool_parser

GOLDEN = Path(__file__).parents[2] / "tests/export/golden" / "efficient_sam.npz"
# Every tensor has its published shape: the stored positions belong to a smaller grid than either size.
SIZE = 320
# Width and heads, as in `build_efficient_sam_vitt` and `build_efficient_sam_vits`.
VARIANTS = {"vitt": (192, 3), "vits": (384, 6)}
KINDS = ("points", "box", "points and box")


def published_model(folder, name, size=1024):
    """The model as `build_efficient_sam` makes it, for images of `size`."""
    sys.path.insert(0, str(folder))
    module = importlib.import_module("efficient_sam.efficient_sam")
    encoder_class = importlib.import_module("efficient_sam.efficient_sam_encoder").ImageEncoderViT

    def smaller(**arguments):
        return encoder_class(**{**arguments, "img_size": size})

    def prompts(**arguments):
        return prompt_class(**{**arguments, "input_image_size": (size, size)})

    prompt_class = module.PromptEncoder
    module.ImageEncoderViT, module.PromptEncoder = smaller, prompts
    try:
        return module.build_efficient_sam(*VARIANTS[name]).eval()
    finally:
        module.ImageEncoderViT, module.PromptEncoder = encoder_class, prompt_class


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def picture(size):
    """A random image (H, W, 3) uint8, twice as wide as high and larger than `size`: the model resizes it."""
    return np.random.default_rng(11).integers(0, 256, (size, 2 * size, 3), np.uint8)


def points_of(prompt):
    """A prompt of `seeded_prompts` as points and labels; boxes become labelled corners."""
    points, boxes, _ = prompt
    coords, labels = [], []
    if points is not None:
        coords, labels = [points[0]], [points[1].float()]
    if boxes is not None:
        coords.append(boxes.reshape(2, 2, 2))
        labels.append(torch.tensor([[2.0, 3.0]]).expand(2, 2))
    return torch.cat(coords, 1), torch.cat(labels, 1)


@torch.inference_mode()
def published_outputs(model, size):
    """Embeddings of a normalised image, masks and predicted IoU, and a whole prediction, by name."""
    model.load_state_dict(seeded_weights(shapes(model)))
    embeddings = model.image_encoder(seeded_image(size))
    found = {"embeddings": embeddings}
    for kind in KINDS:
        coords, labels = points_of(seeded_prompts(size)[kind])
        for multimask in (True, False):
            low, iou = model.predict_masks(embeddings, coords[None], labels[None], multimask, size, size)
            found[f"{kind}/{multimask}/masks"] = low[0]
            found[f"{kind}/{multimask}/predicted_iou"] = iou[0]
    image = torch.from_numpy(picture(size)).permute(2, 0, 1)[None] / 255
    coords, labels = points_of(seeded_prompts(size)["points"])
    found["whole/embeddings"] = model.get_image_embeddings(image)
    low, iou = model(image, coords[None], labels[None], scale_to_original_image_size=False)
    found["whole/masks"], found["whole/predicted_iou"] = low[0], iou[0]
    return found


def main(folder):
    """Write the golden file."""
    golden = {}
    for name in VARIANTS:
        with torch.device("meta"):
            golden[f"{name}/shapes"] = np.array(json.dumps(shapes(published_model(folder, name))))
    for name, value in published_outputs(published_model(folder, "vitt", SIZE), SIZE).items():
        print(f"{name}: mean {value.mean():.3f}, deviation {value.std():.3f}")
        golden[name] = sampled(value)
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    parser = tool_parser("golden.make_efficient_sam", __doc__)
    parser.add_argument("folder")
    args = parser.parse_args()
    main(args.folder)
