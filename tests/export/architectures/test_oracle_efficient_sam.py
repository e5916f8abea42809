"""EfficientSAM against its own code, with the same seeded weights read from a file as published.

What that code made is stored, see `make_golden_efficient_sam`.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sam_edge.bundle.manifest import PromptRules
from sam_edge.errors import PromptError
from sam_edge.export.architectures.mask_decoder import MaskDecoder
from sam_edge.export.checkpoints.layouts import LAYOUTS
from sam_edge.export.checkpoints.read import build_reference, expected_shapes, load_checkpoint
from sam_edge.export.optimize.fuse import fuse
from sam_edge.export.reference.golden import Reference, make_golden
from sam_edge.imaging.preprocess import InputRules, preprocess
from sam_edge.models.catalogue import CATALOGUE
from sam_edge.runtime.prompts import encode_prompts
from sam_edge.types import Prompts
from tools.golden.make_efficient_sam import GOLDEN, KINDS, SIZE, VARIANTS, picture, points_of
from tools.golden.seeded import apart, sampled, seeded_image, seeded_prompts, seeded_weights

MODEL = replace(CATALOGUE["efficient_sam_vitt"], image_size=SIZE)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as stored:
        return dict(stored)


def published_shapes(golden, name):
    return {key: tuple(shape) for key, shape in json.loads(str(golden[f"{name}/shapes"])).items()}


@pytest.fixture(scope="module")
def ours(golden, tmp_path_factory):
    """The reference for smaller images, and its embeddings."""
    path = tmp_path_factory.mktemp("efficient_sam") / "checkpoint.pt"
    torch.save({"model": seeded_weights(published_shapes(golden, "vitt"))}, path)
    loaded = load_checkpoint(path)
    assert (loaded.model.name, loaded.layout) == ("efficient_sam_vitt", "published")
    sam = build_reference(replace(loaded, model=MODEL))
    with torch.inference_mode():
        (embeddings,) = sam.encode(seeded_image(SIZE))
    return sam, embeddings


def padded(coords, labels):
    """Six points, as the runtime makes them: padding at (0, 0)."""
    missing = MODEL.prompt.num_points - labels.shape[1]
    return F.pad(coords, (0, 0, 0, missing)), F.pad(labels, (0, missing), value=-1.0)


def decoded(sam, embeddings, kind, mask=0.0):
    given = torch.full((2, 1, SIZE // 4, SIZE // 4), mask)
    with torch.inference_mode():
        points = padded(*points_of(seeded_prompts(SIZE)[kind]))
        return sam.decode(embeddings, *points, given, torch.full((2,), float(mask != 0)))


@pytest.mark.parametrize("name", VARIANTS)
def test_names_and_shapes_are_the_published_ones(golden, name):
    (layout,) = [one for one in LAYOUTS if "efficient_sam" in one.families]
    stored = {key: torch.empty(shape, device="meta") for key, shape in published_shapes(golden, name).items()}
    found = {key: tuple(value.shape) for key, value in layout.rename(stored).items()}
    assert found == expected_shapes(CATALOGUE[f"efficient_sam_{name}"])


def test_the_encoder_is_the_published_one(golden, ours):
    assert apart(sampled(ours[1]), golden["embeddings"]) <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_is_the_published_one(golden, ours, kind):
    low, scores = decoded(*ours, kind)
    assert apart(sampled(low), golden[f"{kind}/True/masks"]) <= 1e-4
    assert apart(scores.numpy().ravel(), golden[f"{kind}/True/predicted_iou"]) <= 1e-4


def test_the_mask_that_is_not_given_away_is_the_published_one_too(golden, ours):
    sam, embeddings = ours
    with torch.inference_mode():
        coords, labels = padded(*points_of(seeded_prompts(SIZE)["points"]))
        sparse = sam.prompt_encoder.embed_points(coords, labels)
        positions = sam.prompt_encoder.dense_positions()
        low, scores = MaskDecoder.forward(sam.mask_decoder, embeddings, positions, sparse, None)
    assert apart(sampled(low[:, :1]), golden["points/False/masks"]) <= 1e-4
    assert apart(scores[:, :1].numpy().ravel(), golden["points/False/predicted_iou"]) <= 1e-4


def test_an_earlier_mask_is_ignored_by_the_decoder_and_refused_by_the_runtime(ours):
    for one, other in zip(decoded(*ours, "box"), decoded(*ours, "box", mask=7.0), strict=True):
        assert torch.equal(one, other)
    rules = PromptRules((SIZE, SIZE), "without_box", 6, mask_prompt=False)
    with pytest.raises(PromptError, match="no mask"):
        encode_prompts(Prompts([[1, 1]], [1], None, np.zeros((1, 4, 4))), (8, 8), (SIZE, SIZE), rules, (4, 4))


def test_golden_data_has_no_mask_prompts(ours):
    sam, _ = ours
    prompts = make_golden(sam, MODEL).prompts
    assert prompts and all(prompt.mask_input is None for prompt in prompts)
    assert {len(prompt.scores) for prompt in prompts} == {3}


def test_a_whole_prediction_is_the_published_ones(golden, ours):
    """A picture that has to be resized, and points in its own pixels."""
    sam, _ = ours
    reference, image = Reference(sam, MODEL), picture(SIZE)
    seen = reference.encode(image)
    assert apart(sampled(seen.embeddings[0]), golden["whole/embeddings"]) <= 1e-4
    coords, labels = points_of(seeded_prompts(SIZE)["points"])
    found = [reference.decode(seen, c, k) for c, k in zip(coords.numpy(), labels.numpy(), strict=True)]
    low, scores = (torch.from_numpy(np.stack([one[i] for one in found])) for i in (0, 2))
    assert apart(sampled(low), golden["whole/masks"]) <= 1e-4
    assert apart(scores.numpy().ravel(), golden["whole/predicted_iou"]) <= 1e-4


def test_the_runtimes_input_is_the_published_one(golden, ours):
    rules = MODEL.preprocess
    images, _ = preprocess(
        picture(SIZE),
        InputRules((SIZE, SIZE), rules.resize, rules.antialias, rules.mean, rules.std, rules.pad_value),
    )
    with torch.inference_mode():
        (found,) = ours[0].encode(torch.from_numpy(images))
    assert apart(sampled(found), golden["whole/embeddings"]) <= 1e-4


def test_fusing_changes_nothing_and_interpolates_the_positions_once(ours):
    sam, embeddings = ours
    fused = fuse(sam)
    assert fused.image_encoder.pos_embed.shape[1] == 1 + (SIZE // 16) ** 2
    with torch.inference_mode():
        (found,) = fused.encode(seeded_image(SIZE))
    assert apart(found.numpy(), embeddings.numpy()) <= 1e-4


@pytest.mark.parametrize(
    "key",
    [
        "image_encoder.pos_embed",
        "prompt_encoder.invalid_points.weight",
        "mask_decoder.output_upscaling.1.bias",
    ],
)
def test_one_changed_weight_is_seen(golden, ours, key):
    sam, _ = ours
    weight = sam.get_parameter(key)
    kept = weight.clone()
    weight.view(-1)[-1] += 3
    with torch.inference_mode():
        low, _ = decoded(sam, *sam.encode(seeded_image(SIZE)), "points")
    weight.copy_(kept)
    assert apart(sampled(low), golden["points/True/masks"]) > 1e-4
