"""Writes golden outputs of EdgeSAM's published code with seeded weights: `golden/edge_sam.npz`.

The code is github.com/chongzhou96/EdgeSAM (S-Lab License, not in this repository), with timm's squeeze and
excitation. Both require packages that cannot be installed beside every torch and that the modules used here
do not need, so their sources are read and not installed:

    git clone https://github.com/chongzhou96/EdgeSAM
    pip download --no-deps timm==1.0.31 && unzip -d TIMM timm-1.0.31-py3-none-any.whl
    python -m tools.golden.make_edge_sam EdgeSAM TIMM
"""

import importlib
import json
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

from tools.golden.seeded import sampled, seeded_image, seeded_prompts, seeded_weights
from tools.shared.commands import tool_parser

GOLDEN = Path(__file__).parents[2] / "tests/export/golden" / "edge_sam.npz"
# Every tensor has its published shape: convolutions do not depend on the size.
SIZE = 256
GAIN = 0.7


def _package(name, folder):
    """Make the modules of a package importable without running its `__init__`."""
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [str(Path(folder, *name.split(".")))]
    return module


def published_model(size, edge_sam, timm):
    """The model as `build_edge_sam` makes it, for images of `size`; and the published stability score."""
    _package("timm", timm)
    _package("timm.layers", timm)
    excite = importlib.import_module("timm.layers.squeeze_excite").SqueezeExcite
    _package("timm.models", timm)
    sys.modules["timm.models.layers"] = MagicMock(SqueezeExcite=excite)
    sys.modules["timm.models.vision_transformer"] = MagicMock()
    sys.modules["loralib"] = MagicMock()
    for name in ("edge_sam", "edge_sam.modeling", "edge_sam.utils"):
        _package(name, edge_sam)
    rep_vit, prompt_encoder, mask_decoder, transformer = (
        importlib.import_module(f"edge_sam.modeling.{name}")
        for name in ("rep_vit", "prompt_encoder", "mask_decoder", "transformer")
    )
    side = size // 16
    model = torch.nn.Module()
    model.image_encoder = rep_vit.RepViT("m1", size, fuse=True, upsample_mode="bicubic")
    model.prompt_encoder = prompt_encoder.PromptEncoder(
        embed_dim=256, image_embedding_size=(side, side), input_image_size=(size, size), mask_in_chans=16
    )
    model.mask_decoder = mask_decoder.MaskDecoder(
        num_multimask_outputs=3,
        transformer=transformer.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        transformer_dim=256,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    return model.eval(), importlib.import_module("edge_sam.utils.amg").calculate_stability_score


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@torch.inference_mode()
def published_outputs(model, stability_score, size):
    """Embeddings, and masks, predicted IoU and stability for each kind of prompt, by name."""
    model.load_state_dict(seeded_weights(shapes(model), GAIN))
    embeddings = model.image_encoder(seeded_image(size))
    found = {"embeddings": embeddings}
    for kind, (points, boxes, masks) in seeded_prompts(size).items():
        sparse, dense = model.prompt_encoder(points=points, boxes=boxes, masks=masks)
        for count in (1, 3):
            low, iou = model.mask_decoder(
                image_embeddings=embeddings,
                image_pe=model.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                num_multimask_outputs=count,
            )
            found[f"{kind}/{count}/masks"] = low
            found[f"{kind}/{count}/predicted_iou"] = iou
            found[f"{kind}/{count}/stability"] = stability_score(low, 0.0, 1.0)
    return found


def main(edge_sam, timm):
    """Write the golden file."""
    model, stability_score = published_model(SIZE, edge_sam, timm)
    golden = {"shapes": np.array(json.dumps(shapes(model)))}
    for name, value in published_outputs(model, stability_score, SIZE).items():
        print(f"{name}: mean {value.mean():.3f}, deviation {value.std():.3f}")
        golden[name] = sampled(value)
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    parser = tool_parser("golden.make_edge_sam", __doc__)
    parser.add_argument("edge_sam")
    parser.add_argument("timm")
    args = parser.parse_args()
    main(args.edge_sam, args.timm)
