"""EdgeTAM on pictures against stored outputs of the published code and of Hugging Face's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sam_edge.export.architectures.model import build_model
from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.export.optimize.fuse import fuse
from sam_edge.models.catalogue import CATALOGUE
from tests.export.architectures.test_oracle_sam2 import KINDS, OUTPUTS, agree, decode
from tools.golden.make_sam2 import GOLDEN, image, prompts, sample, seeded_weights, unpacked

MODEL = CATALOGUE["edgetam"]
STORED = np.load(GOLDEN / "edgetam.npz")
SHAPES = unpacked(STORED)


def encoded(loaded):
    sam = build_reference(loaded)
    with torch.inference_mode():
        return sam, sam.encode(image())


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = tmp_path_factory.mktemp("edgetam") / "edgetam.pt"
    torch.save({"model": seeded_weights(SHAPES["edgetam"])}, path)
    found = load_checkpoint(path)
    assert (found.model, found.layout) == (MODEL, "published")
    return found


@pytest.fixture(scope="module")
def published(loaded):
    return encoded(loaded)


def test_its_parameters_are_as_listed():
    with torch.device("meta"):
        assert sum(value.numel() for value in build_model(MODEL).parameters()) == MODEL.parameters


@pytest.mark.parametrize("index", range(3))
def test_the_encoder_is_the_published_one(published, index):
    agree(sample(published[1][index]), STORED[OUTPUTS[index]])


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_is_the_published_predictors(published, kind):
    sam, embeddings = published
    with torch.inference_mode():
        low, scores = decode(sam, embeddings, *prompts()[kind])
    for multimask, kept in ((True, slice(1, 4)), (False, slice(0, 1))):
        agree(sample(low[:, kept]), STORED[f"{kind}/{multimask}/masks"])
        agree(scores[:, kept], STORED[f"{kind}/{multimask}/scores"])


def test_it_is_hugging_faces(tmp_path):
    path, weights = tmp_path / "model.safetensors", seeded_weights(SHAPES["huggingface"])
    shared = "prompt_encoder.shared_embedding.positional_embedding"
    weights["shared_image_embedding.positional_embedding"] = weights[shared].clone()
    save_file(weights, path)
    found = load_checkpoint(path)
    assert (found.model, found.layout) == (MODEL, "huggingface")
    sam, embeddings = encoded(found)
    # It has them from the finest to the coarsest.
    for index, ours in enumerate((*embeddings[1:], embeddings[0])):
        agree(sample(ours), STORED[f"huggingface/embeddings_{index}"])
    with torch.inference_mode():
        low, scores = decode(sam, embeddings, *prompts()["points"])
    for multimask, kept in ((True, slice(1, 4)), (False, slice(0, 1))):
        agree(sample(low[:, kept]), STORED[f"huggingface/{multimask}/masks"])
        agree(scores[:, kept], STORED[f"huggingface/{multimask}/scores"])


@pytest.fixture
def small(loaded):
    sam = build_model(replace(MODEL, image_size=256))
    sam.load_state_dict(loaded.weights)
    return sam.eval().requires_grad_(False)


def test_fused_it_is_the_same_function(small):
    pixels, fused = image()[..., :256, :256], fuse(small)
    assert not [m for m in fused.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.inference_mode():
        for ours, theirs in zip(fused.encode(pixels), small.encode(pixels), strict=True):
            agree(ours, theirs)


def test_one_changed_weight_is_seen(small):
    pixels = image()[..., :256, :256]
    with torch.inference_mode():
        before, *_ = small.encode(pixels)
        small.image_encoder.trunk.features[7].token_mixer[0].conv1.bn.running_mean[5] += 10.0
        after, *_ = small.encode(pixels)
    with pytest.raises(AssertionError):
        agree(after, before)
