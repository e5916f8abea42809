"""`segment_anything` 1.0 as it is published, with stand-ins for the few things it takes from torchvision.

What they do is written anew here: Pillow's resize, and non-maximal suppression box by box.
"""

import importlib
import sys
from functools import partial
from types import ModuleType
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from sam_edge.models.catalogue import VitEncoder


def _batched_nms(boxes, scores, idxs, iou_threshold):
    assert not idxs.any()
    kept = []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        x0, y0, x1, y1 = boxes[i].tolist()
        for j in kept:
            a0, b0, a1, b1 = boxes[j].tolist()
            overlap = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
            union = (x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - overlap
            if union and overlap / union > iou_threshold:
                break
        else:
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long)


def _box_area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _resize(picture, size):
    return picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def published(name=""):
    """A module of the package, "utils.onnx" say; or the package itself."""
    contents = {
        "": {},
        ".ops": {},
        ".ops.boxes": {"batched_nms": _batched_nms, "box_area": _box_area},
        ".transforms": {},
        ".transforms.functional": {"resize": _resize, "to_pil_image": Image.fromarray},
    }
    stand_ins = {}
    for key, functions in contents.items():
        module = ModuleType(f"torchvision{key}")
        vars(module).update(functions)
        stand_ins[module.__name__] = module
    with patch.dict(sys.modules, stand_ins):
        return importlib.import_module(f"segment_anything.{name}" if name else "segment_anything")


def published_sam(model, image_encoder=None):
    """The published `Sam` with the sizes of a catalogue entry; another image encoder than a ViT is given."""
    modeling = published("modeling")
    encoder, decoder, side = model.encoder, model.decoder, model.embedding_side
    if image_encoder is None:
        assert isinstance(encoder, VitEncoder)
        image_encoder = modeling.ImageEncoderViT(
            depth=encoder.depth,
            embed_dim=encoder.embed_dim,
            img_size=model.image_size,
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=encoder.num_heads,
            patch_size=16,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=encoder.global_attn_indexes,
            window_size=14,
            out_chans=decoder.dim,
        )
    image_encoder.img_size = model.image_size
    return modeling.Sam(
        image_encoder=image_encoder,
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=decoder.dim,
            image_embedding_size=(side, side),
            input_image_size=(model.image_size, model.image_size),
            mask_in_chans=decoder.mask_in_chans,
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=decoder.depth,
                embedding_dim=decoder.dim,
                mlp_dim=decoder.mlp_dim,
                num_heads=decoder.num_heads,
            ),
            transformer_dim=decoder.dim,
            iou_head_depth=3,
            iou_head_hidden_dim=decoder.iou_head_hidden_dim,
        ),
        pixel_mean=list(model.preprocess.mean),
        pixel_std=list(model.preprocess.std),
    ).eval()


def published_tiny():
    """The embedded model inside the published code: our image encoder, their everything else."""
    from sam_edge.export.checkpoint import build_reference, load_checkpoint
    from sam_edge.export.pipeline import find_checkpoint
    from sam_edge.models.catalogue import CATALOGUE, DEFAULT_MODEL

    ours = build_reference(load_checkpoint(find_checkpoint(DEFAULT_MODEL, None), None))
    theirs = published_sam(CATALOGUE[DEFAULT_MODEL], ours.image_encoder)
    found = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not found.missing_keys and not found.unexpected_keys, found
    return theirs


def random_image(size, seed):
    """(H, W, 3) uint8: a packaged photograph, turned and stretched at random to `size` (H, W)."""
    from sam_edge.models.photos import PHOTOS, read_photo

    rng = np.random.default_rng(seed)
    photo = read_photo(PHOTOS[int(rng.integers(len(PHOTOS)))])
    picture = Image.fromarray(np.rot90(photo, int(rng.integers(4))).copy())
    return np.array(picture.resize((size[1], size[0]), Image.Resampling.BICUBIC))
