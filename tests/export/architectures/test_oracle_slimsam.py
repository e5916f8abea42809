"""SlimSAM against Hugging Face's SAM with SlimSAM's configuration, from files in both layouts.

The widths are the published ones; the image is smaller, so that the comparison takes seconds.
"""

from dataclasses import replace

import pytest
import torch
from transformers import SamConfig, SamVisionConfig
from transformers import SamModel as HuggingFaceSam

from sam_edge.export.checkpoints import read as checkpoint
from sam_edge.export.checkpoints.read import build_reference, expected_shapes, load_checkpoint
from sam_edge.models.catalogue import CATALOGUE
from tests.export.architectures.test_oracle_sam import agree, our_decode, prompts, randomise
from tools.published import published_sam

# Widths of https://huggingface.co/Zigeng/SlimSAM-uniform-50 and -77, as their conversion script has them.
WIDTHS = {
    "slimsam_50": {"hidden_size": 384, "mlp_dim": 1536},
    "slimsam_77": {"hidden_size": 168, "mlp_dim": 696},
}
SMALL = replace(CATALOGUE["slimsam_77"], name="small", image_size=320)


def hugging_face(name, image_size):
    vision = SamVisionConfig(image_size=image_size, global_attn_indexes=[2, 5, 8, 11], **WIDTHS[name])
    prompt = {"image_size": image_size, "image_embedding_size": image_size // 16}
    return HuggingFaceSam(SamConfig(vision_config=vision.to_dict(), prompt_encoder_config=prompt))


@pytest.fixture(scope="module")
def oracle():
    sam = randomise(hugging_face("slimsam_77", SMALL.image_size))
    # One tensor by two names.
    sam.shared_image_embedding.positional_embedding.data = (
        sam.prompt_encoder.shared_embedding.positional_embedding.data
    )
    return sam


@pytest.fixture(scope="module")
def ours(oracle, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "pytorch_model.bin"
    torch.save(oracle.state_dict(), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "CATALOGUE", {SMALL.name: SMALL})
        loaded = load_checkpoint(path)
    assert (loaded.model, loaded.layout) == (SMALL, "huggingface")
    return build_reference(loaded)


@pytest.fixture(scope="module")
def images():
    return torch.randn(1, 3, SMALL.image_size, SMALL.image_size, generator=torch.Generator().manual_seed(1))


def test_the_encoder_is_hugging_faces(ours, oracle, images):
    agree(ours.image_encoder(images), oracle.get_image_embeddings(images))


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", ["points", "box", "points and box", "points and mask"])
def test_the_decoder_is_hugging_faces(ours, oracle, images, kind, multimask):
    points, boxes, mask = prompts(SMALL)[kind]
    embeddings = oracle.get_image_embeddings(images)
    # Its prompts share one mask; ours have one each.
    each = None if mask is None else mask[:1].expand(2, -1, -1, -1)
    low, scores = our_decode(ours, embeddings, points, boxes, each, padding=True)
    out = oracle(
        image_embeddings=embeddings,
        input_points=None if points is None else points[0][None],
        input_labels=None if points is None else points[1][None],
        input_boxes=None if boxes is None else boxes[None],
        input_masks=None if mask is None else mask[:1],
        multimask_output=multimask,
    )
    kept = slice(1, 4) if multimask else slice(0, 1)
    agree(low[:, kept], out.pred_masks[0])
    agree(scores[:, kept], out.iou_scores[0])


def test_one_changed_weight_is_seen(ours, oracle, images):
    weight = ours.image_encoder.blocks[7].mlp.lin1.weight.data
    weight[5] *= 2
    with pytest.raises(AssertionError):
        agree(ours.image_encoder(images), oracle.get_image_embeddings(images))
    weight[5] /= 2


@pytest.mark.parametrize("name", WIDTHS)
def test_files_at_full_size_are_recognised(name, tmp_path):
    with torch.device("meta"):
        theirs = hugging_face(name, 1024).state_dict()
        published = published_sam(CATALOGUE[name]).state_dict()
    assert published.keys() == expected_shapes(CATALOGUE[name]).keys()
    files = {
        "huggingface": {key: torch.zeros(value.shape) for key, value in theirs.items()},
        "published": {key: torch.zeros(shape) for key, shape in expected_shapes(CATALOGUE[name]).items()},
    }
    for layout, weights in files.items():
        torch.save(weights, tmp_path / "weights.pth")
        loaded = load_checkpoint(tmp_path / "weights.pth")
        assert (loaded.model, loaded.layout) == (CATALOGUE[name], layout)
