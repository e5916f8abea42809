"""Writes golden outputs of EfficientViT-SAM's published code: `golden/efficientvit_sam.npz`.

The code is the package `efficientsam` 1.0.0 (Apache-2.0), a copy of github.com/mit-han-lab/efficientvit. It
requires torchvision, which cannot be installed beside every torch and which the modules used here do not
need, so it is read from its unpacked wheel and not installed:

    pip download --no-deps efficientsam==1.0.0 && unzip -d WHEEL efficientsam-1.0.0-py3-none-any.whl
    python -m tools.golden.make_efficientvit_sam WHEEL
"""

import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

from tools.golden.seeded import sampled, seeded_image, seeded_prompts, seeded_weights
from tools.shared.commands import tool_parser

GOLDEN = Path(__file__).parents[2] / "tests/export/golden" / "efficientvit_sam.npz"
VARIANTS = ("l0", "l1", "l2", "xl0", "xl1")
# The XL kind, scaled down.
SMALL_XL = {"width_list": [16, 16, 16, 32, 64, 64], "depth_list": [0, 1, 1, 1, 1, 2]}
GAIN = 1.5
SIZES = {"l0": 512, "small_xl": 1024}


def _oracles(wheel):
    sys.path.insert(0, wheel)
    for name in ("", ".ops", ".ops.boxes", ".transforms", ".transforms.functional"):
        sys.modules[f"torchvision{name}"] = MagicMock()
    from efficientsam.models.efficientvit import sam
    from efficientsam.models.efficientvit.backbone import EfficientViTLargeBackbone
    from efficientsam.sam_model_zoo import create_efficientvit_sam_model, set_norm_eps

    models = {n: create_efficientvit_sam_model(f"efficientvit-sam-{n}", pretrained=False) for n in VARIANTS}
    backbone = EfficientViTLargeBackbone(
        **SMALL_XL,
        block_list=["res", "fmb", "fmb", "fmb", "att@3", "att@3"],
        expand_list=[1, 4, 4, 4, 4, 6],
        fewer_norm_list=[False, False, False, False, True, True],
    )
    widths = SMALL_XL["width_list"]
    neck = sam.SamNeck(["stage5", "stage4", "stage3"], widths[:2:-1], 256, 1, 4, "fmb")
    encoder = sam.EfficientViTSamImageEncoder(backbone, neck)
    models["small_xl"] = sam.build_efficientvit_sam(encoder, 1024)
    set_norm_eps(models["small_xl"], 1e-6)
    return models


def _shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def epsilons(model):
    """The epsilon of every norm, by name: they are not the defaults, and outputs hardly depend on them."""
    return {name: m.eps for name, m in model.named_modules() if hasattr(m, "eps") and hasattr(m, "weight")}


@torch.inference_mode()
def main(wheel):
    """Write the golden file."""
    models = _oracles(wheel)
    golden = {"shapes": np.array(json.dumps({name: _shapes(model) for name, model in models.items()}))}
    golden["epsilons"] = np.array(json.dumps({name: epsilons(model) for name, model in models.items()}))
    for name, size in SIZES.items():
        model = models[name].eval()
        model.load_state_dict(seeded_weights(_shapes(model), GAIN))
        embeddings = model.image_encoder(seeded_image(size))
        golden[f"{name}/embeddings"] = sampled(embeddings)
        for kind, (points, boxes, masks) in seeded_prompts(1024).items():
            sparse, dense = model.prompt_encoder(points=points, boxes=boxes, masks=masks)
            for multimask in (True, False):
                low, scores = model.mask_decoder(
                    image_embeddings=embeddings,
                    image_pe=model.prompt_encoder.get_dense_pe(),
                    sparse_prompt_embeddings=sparse,
                    dense_prompt_embeddings=dense,
                    multimask_output=multimask,
                )
                golden[f"{name}/{kind}/{multimask}/masks"] = sampled(low)
                golden[f"{name}/{kind}/{multimask}/scores"] = scores.numpy()
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    parser = tool_parser("golden.make_efficientvit_sam", __doc__)
    parser.add_argument("wheel")
    args = parser.parse_args()
    main(args.wheel)
