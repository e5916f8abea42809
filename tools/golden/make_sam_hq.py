"""Writes golden outputs of SAM-HQ's published code with seeded weights: `golden/sam_hq.npz`.

    python -m tools.golden.make_sam_hq FOLDER

FOLDER has the unpacked package, which cannot be installed beside this project's PyTorch: `pip download
--no-deps segment-anything-hq==0.3`, then unzip the wheel there. Weights are made from a seed and not stored.
The file has samples of the outputs of the published predictor, and the names and shapes of the published
checkpoints.
"""

import importlib
import json
import sys
import types
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tools.golden.seeded import sampled, seeded_image, seeded_prompts, seeded_weights
from tools.shared.commands import tool_parser

GOLDEN = Path(__file__).parents[2] / "tests/export/golden" / "sam_hq.npz"
# A smaller ViT of the published code: image size, width, depth, heads and global blocks.
SMALL = (320, 48, 4, 3, (1, 3))


def published_package(folder):
    """Import segment_anything_hq from `folder`, with stand-ins for torchvision and timm."""

    def stand_in(name, **attributes):
        module = sys.modules[name] = types.ModuleType(name)
        module.__dict__.update(attributes)

    stand_in("torchvision")
    stand_in("torchvision.ops")
    stand_in("torchvision.ops.boxes", batched_nms=None, box_area=None)
    stand_in("torchvision.transforms")
    stand_in("torchvision.transforms.functional", resize=None, to_pil_image=None)
    stand_in("timm")
    stand_in("timm.models")
    layers = {
        "DropPath": type("DropPath", (torch.nn.Identity,), {}),
        "to_2tuple": lambda x: (x, x),
        "trunc_normal_": torch.nn.init.trunc_normal_,
    }
    stand_in("timm.models.layers", **layers)
    stand_in("timm.models.registry", register_model=lambda function: function)
    sys.path.insert(0, str(folder))
    return importlib.import_module("segment_anything_hq")


def small_model(package):
    size, width, depth, heads, blocks = SMALL
    modeling = package.modeling
    return modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=size,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=blocks,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=256,
            image_embedding_size=(size // 16, size // 16),
            input_image_size=(size, size),
            mask_in_chans=16,
        ),
        mask_decoder=modeling.MaskDecoderHQ(
            transformer_dim=256,
            transformer=modeling.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
            vit_dim=width,
        ),
    )


def published_shapes(sam):
    return {name: tuple(value.shape) for name, value in sam.state_dict().items()}


def published_outputs(package, sam, image):
    """Samples of the outputs of the published predictor for each kind of prompt."""
    sam.load_state_dict(seeded_weights(published_shapes(sam)))
    sam.pixel_mean, sam.pixel_std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    predictor = package.SamPredictor(sam.eval())
    predictor.set_torch_image(image, tuple(image.shape[-2:]))
    decoder, early = sam.mask_decoder, predictor.interm_features[0].permute(0, 3, 1, 2)
    features = decoder.embedding_encoder(predictor.features) + decoder.compress_vit_feat(early)
    found = {"image_embeddings": sampled(predictor.features), "hq_features": sampled(features)}
    for kind, (points, boxes, mask) in seeded_prompts(image.shape[-1]).items():
        coords, labels = points if points is not None else (None, None)
        for multimask in (True, False):
            _, scores, low = predictor.predict_torch(coords, labels, boxes, mask, multimask)
            found[f"{kind}/{multimask}/masks"] = sampled(low)
            found[f"{kind}/{multimask}/scores"] = scores.numpy()
    return found


@torch.no_grad()
def main(folder):
    """Write the golden file."""
    package = published_package(Path(folder))
    stored = {}
    for name, sam in (
        ("small", small_model(package)),
        ("vit_tiny", package.sam_model_registry["vit_tiny"]()),
    ):
        found = published_outputs(package, sam, seeded_image(sam.image_encoder.img_size))
        stored |= {f"{name}/{key}": value for key, value in found.items()}
        stored[f"{name}/shapes"] = published_shapes(sam)
    for name in ("vit_b", "vit_l", "vit_h"):
        with torch.device("meta"):
            stored[f"{name}/shapes"] = published_shapes(package.sam_model_registry[name]())
    for key, value in stored.items():
        if key.endswith("/shapes"):
            stored[key] = np.frombuffer(json.dumps(value).encode(), np.uint8)
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **stored)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    parser = tool_parser("golden.make_sam_hq", __doc__)
    parser.add_argument("folder")
    args = parser.parse_args()
    main(args.folder)
