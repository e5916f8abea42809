"""MobileSAM against its published code (the `mobilesam-mirror` package), at full size, from a file."""

import pytest
import torch
from torch import nn

from sam_edge.export.architectures.image_encoder_tiny_vit import Attention
from sam_edge.export.architectures.layers import ConvNorm
from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.export.optimize.fuse import fuse
from sam_edge.export.quantize.equalization import rewrite
from sam_edge.models.catalogue import CATALOGUE
from tests.export.architectures.test_oracle_sam import agree, our_decode, prompts
from tools.published import published_around, published_mobile_sam

MODEL = CATALOGUE["mobile_sam"]


@torch.inference_mode()
def randomise(sam, images):
    """Random weights and attention biases, and BatchNorm's statistics on `images`: all signals stay alive."""
    generator = torch.Generator().manual_seed(7)
    for name, value in sam.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("weight") and ("norm" in name or ".bn." in name):
            value.copy_(1 + 0.2 * noise)
        elif name.endswith(("attention_biases", "gaussian_matrix")):
            value.copy_(noise)
        elif value.dim() >= 2 and "embed" not in name.rsplit(".", 2)[-2]:
            value.copy_(noise / value[0].numel() ** 0.5)
        elif value.is_floating_point():
            value.copy_(0.3 * noise)
    for module in sam.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    sam.train().image_encoder(images)
    # In evaluation mode the published code keeps a copy of the biases.
    return sam.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def oracle(images):
    return randomise(published_mobile_sam().sam_model_registry["vit_t"](), images)


@pytest.fixture(scope="module")
def checkpoint(oracle, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "mobile_sam.pt"
    torch.save(oracle.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def ours(checkpoint):
    loaded = load_checkpoint(checkpoint)
    assert (loaded.model, loaded.layout) == (MODEL, "published")
    return build_reference(loaded)


@pytest.fixture(scope="module")
def embeddings(oracle, images):
    return oracle.image_encoder(images)


def test_the_encoder_is_the_published_one(ours, images, embeddings):
    agree(ours.image_encoder(images), embeddings)


@pytest.mark.parametrize("kind", ["points", "box", "points and box", "points and mask"])
def test_the_decoder_is_the_published_one(ours, oracle, embeddings, kind):
    points, boxes, mask = prompts(MODEL)[kind]
    low, scores = our_decode(ours, embeddings, points, boxes, mask, padding=True)
    sparse, dense = oracle.prompt_encoder(points=points, boxes=boxes, masks=mask)
    for multimask, kept in ((True, slice(1, 4)), (False, slice(0, 1))):
        theirs, their_scores = oracle.mask_decoder(
            image_embeddings=embeddings,
            image_pe=oracle.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        agree(low[:, kept], theirs)
        agree(scores[:, kept], their_scores)


def test_what_we_are_compared_with_is_the_published_code(checkpoint, images, embeddings):
    sam = published_around(checkpoint)
    assert type(sam.image_encoder).__module__.startswith("mobile_sam.")
    assert type(sam.mask_decoder).__module__.startswith("segment_anything.")
    agree(sam.image_encoder(images), embeddings)


def test_fused_it_is_the_same_function(ours, images, embeddings):
    fused = fuse(ours)
    assert not any(isinstance(module, ConvNorm | Attention) for module in fused.modules())
    agree(fused.image_encoder(images), embeddings)


def test_one_changed_weight_is_seen(ours, images, embeddings):
    biases = ours.image_encoder.layers[2].blocks[3].attn.attention_biases.data
    biases[1, 2] += 1.0
    try:
        with pytest.raises(AssertionError):
            agree(ours.image_encoder(images), embeddings)
    finally:
        biases[1, 2] -= 1.0


def test_the_rewrites_for_int8_are_exact(ours, images, embeddings):
    rewritten, _ = rewrite(fuse(ours), [images.numpy()])
    agree(rewritten.image_encoder(images), embeddings)
