"""EdgeSAM against its own code, with the same seeded weights read from a file as published.

What that code made is stored, see `make_golden_edge_sam`.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sam_edge.export.architectures.image_encoder_repvit import Upsample
from sam_edge.export.architectures.model import stability
from sam_edge.export.checkpoints.read import build_reference, expected_shapes, load_checkpoint
from sam_edge.export.optimize.fuse import fuse
from sam_edge.models.catalogue import CATALOGUE
from tools.golden.make_edge_sam import GAIN, GOLDEN, SIZE
from tools.golden.seeded import apart, sampled, seeded_image, seeded_prompts, seeded_weights

KINDS = seeded_prompts(SIZE)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def checkpoint(golden, tmp_path_factory):
    shapes = {name: tuple(shape) for name, shape in json.loads(str(golden["shapes"])).items()}
    weights = seeded_weights(shapes, GAIN)
    path = tmp_path_factory.mktemp("edge_sam") / "checkpoint.pth"
    torch.save({**weights, "rpn_head.rpn_conv.weight": torch.zeros(1)}, path)
    return path


@pytest.fixture(scope="module")
def ours(checkpoint):
    """The reference for smaller images, and its embeddings."""
    loaded = load_checkpoint(checkpoint)
    sam = build_reference(replace(loaded, model=replace(loaded.model, image_size=SIZE)))
    with torch.inference_mode():
        (embeddings,) = sam.encode(seeded_image(SIZE))
    return sam, embeddings


def decoded(sam, embeddings, kind):
    """All four masks of two prompts with their stability, and the predicted IoU."""
    points, boxes, masks = KINDS[kind]
    coords, labels = torch.zeros(2, 0, 2), torch.zeros(2, 0)
    if points is not None:
        coords, labels = points[0], points[1].float()
    if boxes is not None:
        corners, codes = boxes.reshape(2, 2, 2), torch.tensor([[2.0, 3.0]]).expand(2, 2)
    else:
        corners, codes = torch.zeros(2, 1, 2), -torch.ones(2, 1)
    given = torch.zeros(2, 1, SIZE // 4, SIZE // 4) if masks is None else masks
    predicted = []
    hook = sam.mask_decoder.iou_prediction_head.register_forward_hook(lambda *args: predicted.append(args[2]))
    with torch.inference_mode():
        low, scores = sam.decode(
            embeddings,
            torch.cat([coords, corners], 1),
            torch.cat([labels, codes], 1),
            given,
            torch.full((2,), float(masks is not None)),
        )
    hook.remove()
    return low, scores, predicted[0]


def test_both_published_files_are_recognised(checkpoint, golden):
    loaded = load_checkpoint(checkpoint)
    assert (loaded.model.family, loaded.layout) == ("edge_sam", "published")
    assert load_checkpoint(checkpoint, "edge_sam_3x").model.name == "edge_sam_3x"
    for name in ("edge_sam", "edge_sam_3x"):
        shapes = expected_shapes(CATALOGUE[name])
        assert shapes == {key: tuple(shape) for key, shape in json.loads(str(golden["shapes"])).items()}


def test_a_file_of_a_published_name_is_that_model(checkpoint):
    for name in ("edge_sam", "edge_sam_3x"):
        path = checkpoint.rename(checkpoint.with_name(f"{name}.pth"))
        assert load_checkpoint(path).model.name == name
        path.rename(checkpoint)


def test_the_encoder_is_the_published_one(golden, ours):
    assert apart(sampled(ours[1]), golden["embeddings"]) <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_is_the_published_one(golden, ours, kind):
    low, scores, predicted = decoded(*ours, kind)
    for count, kept in ((1, slice(0, 1)), (3, slice(1, 4))):
        assert apart(sampled(low[:, kept]), golden[f"{kind}/{count}/masks"]) <= 1e-4
        assert apart(predicted[:, kept].numpy().ravel(), golden[f"{kind}/{count}/predicted_iou"]) <= 1e-4
        # A count of pixels.
        assert apart(scores[:, kept].numpy().ravel(), golden[f"{kind}/{count}/stability"]) <= 1e-3


def test_fusing_changes_nothing_and_leaves_no_branches(ours):
    sam, embeddings = ours
    fused = fuse(sam)
    assert not [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d) or hasattr(m, "fuse")]
    with torch.inference_mode():
        (found,) = fused.encode(seeded_image(SIZE))
    assert apart(found.numpy(), embeddings.numpy()) <= 1e-4


@pytest.mark.parametrize(
    "key", ["image_encoder.features.9.token_mixer.1.fc2.weight", "image_encoder.fuse_stage3.op_list.0.weight"]
)
def test_one_changed_weight_is_seen(golden, ours, key):
    sam, _ = ours
    weight = sam.get_parameter(key)
    kept = weight[0].clone()
    weight[0] += 1
    with torch.inference_mode():
        (found,) = sam.encode(seeded_image(SIZE))
    weight[0] = kept
    assert apart(sampled(found), golden["embeddings"]) > 1e-4


def test_upsampling_is_bicubic():
    x = seeded_image(32)
    theirs = nn.functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    assert apart(Upsample(32)(x).numpy(), theirs.numpy()) <= 1e-6


def test_the_stability_of_an_empty_mask_is_zero():
    assert stability(torch.full((1, 1, 8, 8), -9.0), 0.0).tolist() == [[0.0]]
    assert stability(torch.full((1, 1, 8, 8), 9.0), 0.0).tolist() == [[1.0]]
