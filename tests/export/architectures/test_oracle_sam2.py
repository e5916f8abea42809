"""SAM 2 and 2.1 on pictures against the published code (stored outputs) and Hugging Face's (run here)."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel
from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder

from sam_edge.export.architectures.model import build_model
from sam_edge.export.architectures.sam2 import single_mask
from sam_edge.export.checkpoints.read import _recognise, build_reference, expected_shapes, load_checkpoint
from sam_edge.export.optimize.fuse import fuse
from sam_edge.export.quantize.equalization import rewrite
from sam_edge.models.catalogue import CATALOGUE
from tools.golden.make_sam2 import CONFIGS, GOLDEN, image, prompts, sample, seeded_weights, unpacked

KINDS = tuple(prompts())
STORED = np.load(GOLDEN / "sam2.npz")
SHAPES = unpacked(STORED)
TINY = CATALOGUE["sam2.1_hiera_tiny"]
# The same weights, since none of their sizes depends on the image's.
SMALL = replace(TINY, image_size=256)
OUTPUTS = ("image_embeddings", "high_res_feats_0", "high_res_feats_1")


def agree(ours, theirs, tolerance=1e-4):
    ours, theirs = torch.as_tensor(ours), torch.as_tensor(theirs)
    assert ours.shape == theirs.shape
    assert theirs.std() > 1e-4
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


def decode(sam, embeddings, points, labels, boxes, masks):
    """Of `sam`, with the corners of boxes and the padding point as the runtime appends them."""
    n = 2
    coords = torch.zeros(n, 0, 2) if points is None else points
    codes = torch.zeros(n, 0) if labels is None else labels.float()
    if boxes is not None:
        coords = torch.cat([coords, boxes.reshape(n, 2, 2)], 1)
        codes = torch.cat([codes, torch.tensor([[2.0, 3.0]]).expand(n, 2)], 1)
    coords = torch.cat([coords, torch.zeros(n, 1, 2)], 1)
    codes = torch.cat([codes, -torch.ones(n, 1)], 1)
    low = 4 * embeddings[0].shape[-1]
    given = torch.zeros(n, 1, low, low) if masks is None else masks
    has_mask = torch.full((n,), float(masks is not None))
    return sam.decode(embeddings[0], coords, codes, given, has_mask, *embeddings[1:])


@pytest.mark.parametrize("name", CONFIGS["sam2"])
def test_every_published_file_is_recognised(name):
    stored = {key: torch.empty(shape, device="meta") for key, shape in SHAPES[name].items()}
    model, weights, layout = _recognise(stored, GOLDEN, None)
    assert (model.name, layout) == (name, "published")
    buffers = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    assert model.parameters == sum(v.numel() for key, v in weights.items() if key != buffers)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = tmp_path_factory.mktemp("sam2") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": seeded_weights(SHAPES[TINY.name])}, path)
    found = load_checkpoint(path)
    assert (found.model, found.layout) == (TINY, "published")
    path.unlink()
    return found


@pytest.fixture(scope="module")
def encoded(loaded):
    sam = build_reference(loaded)
    with torch.inference_mode():
        return sam, sam.encode(image())


@pytest.mark.parametrize("index", range(3))
def test_the_encoder_is_the_published_one(encoded, index):
    agree(sample(encoded[1][index]), STORED[OUTPUTS[index]])


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_is_the_published_predictors(encoded, kind):
    sam, embeddings = encoded
    with torch.inference_mode():
        low, scores = decode(sam, embeddings, *prompts()[kind])
    for multimask, kept in ((True, slice(1, 4)), (False, slice(0, 1))):
        agree(sample(low[:, kept]), STORED[f"{kind}/{multimask}/masks"])
        agree(scores[:, kept], STORED[f"{kind}/{multimask}/scores"])


def test_stored_single_masks_are_both_their_own_and_the_best_of_the_others():
    fallen_back = {
        float(STORED[f"{kind}/False/scores"][i, 0]) == float(STORED[f"{kind}/True/scores"][i].max())
        for kind in KINDS
        for i in range(2)
    }
    assert fallen_back == {True, False}


def test_one_changed_weight_is_seen(loaded):
    sam, changed = (build_small(loaded.weights) for _ in range(2))
    changed.image_encoder.trunk.positions.pos_embed_window.data[0, 3, 2, 1] += 1.0
    pixels = image()[..., :256, :256]
    with torch.inference_mode(), pytest.raises(AssertionError):
        agree(changed.encode(pixels)[0], sam.encode(pixels)[0])


def build_small(weights):
    sam = build_model(SMALL)
    sam.load_state_dict(weights)
    return sam.eval().requires_grad_(False)


def test_fused_and_rewritten_for_int8_it_is_the_same_function(loaded):
    sam, pixels = build_small(loaded.weights), image()[..., :256, :256]
    fused = fuse(sam)
    rewritten, _ = rewrite(fused, [pixels.numpy()])
    with torch.inference_mode():
        expected = sam.encode(pixels)
        for other in (fused, rewritten):
            for ours, theirs in zip(other.encode(pixels), expected, strict=True):
                agree(ours, theirs)


def theirs_single_mask(masks, scores):
    decoder = SimpleNamespace(
        dynamic_multimask_stability_delta=0.05,
        dynamic_multimask_stability_thresh=0.98,
        _get_stability_scores=lambda x: Sam2MaskDecoder._get_stability_scores(decoder, x),
    )
    masks, scores = Sam2MaskDecoder._dynamic_multimask_via_stability(decoder, masks[None], scores[None])
    return masks[0], scores[0]


@pytest.mark.parametrize("sure", [0, 48, 49, 50, 60000])
def test_a_single_mask_is_kept_from_98_of_100_pixels_on(sure):
    random = torch.Generator().manual_seed(5)
    masks, scores = torch.randn(6, 4, 256, 256, generator=random), torch.rand(6, 4, generator=random)
    scores[0, 1:] = 0.5
    masks[:, 0] = -1.0
    masks[:, 0].view(6, -1)[:, :sure] = 1.0
    for index, unsure in enumerate((0, 1, 2, sure // 49, sure // 49 + 1, sure // 40)):
        masks[index, 0].view(-1)[sure : sure + unsure] = 0.04
    for ours, theirs in zip(single_mask(masks, scores), theirs_single_mask(masks, scores), strict=True):
        assert torch.equal(ours, theirs)


def video_parts(**options):
    """Names and zeros of what a file of the whole model holds besides Sam2Model's tensors."""
    with torch.device("meta"):
        whole, pictures = Sam2VideoModel(Sam2VideoConfig(**options)), Sam2Model(Sam2Config())
    known = pictures.state_dict()
    return {key: torch.zeros(v.shape) for key, v in whole.state_dict().items() if key not in known}


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    sides = [[64, 64], [32, 32], [16, 16]]
    vision = {"model_type": "sam2_vision_model", "backbone_feature_sizes": sides}
    theirs = Sam2Model(Sam2Config(vision_config=vision, prompt_encoder_config={"image_size": 256}))
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    weights = seeded_weights(shapes)
    shared = "shared_image_embedding.positional_embedding"
    weights[shared] = weights["prompt_encoder.shared_embedding.positional_embedding"].clone()
    theirs.load_state_dict(weights)
    path = tmp_path_factory.mktemp("sam2") / "model.safetensors"
    save_file(weights | video_parts(), path)
    found = load_checkpoint(path)
    path.unlink()
    assert (found.model, found.layout) == (TINY, "huggingface")
    return build_small(found.weights), theirs.eval().requires_grad_(False), weights


def test_hugging_faces_sam2_and_sam2_1_are_told_apart(hugging_face):
    *_, weights = hugging_face
    older = video_parts(
        enable_occlusion_spatial_embedding=False, enable_temporal_pos_encoding_for_object_pointers=False
    )
    # Sam2Model's own files hold no video parts: either will do.
    for parts in (older, {}):
        model, found, layout = _recognise(weights | parts, GOLDEN, None)
        assert (model.name, layout) == ("sam2_hiera_tiny", "huggingface")
        assert found.keys() == expected_shapes(model).keys()


def test_the_encoder_is_hugging_faces(hugging_face):
    ours, theirs, _ = hugging_face
    pixels = image()[..., :256, :256]
    with torch.inference_mode():
        expected = theirs.get_image_embeddings(pixels)
        for mine, level in zip(ours.encode(pixels), (expected[2], expected[0], expected[1]), strict=True):
            agree(mine, level)


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_is_hugging_faces(hugging_face, kind, multimask):
    ours, theirs, _ = hugging_face
    points, labels, boxes, masks = prompts()[kind]
    points, boxes = (None if x is None else x / 4 for x in (points, boxes))
    # Its prompts share one mask; ours have one each.
    masks = None if masks is None else masks[:1, :, :64, :64]
    with torch.inference_mode():
        levels = theirs.get_image_embeddings(image()[..., :256, :256])
        embeddings = levels[2], levels[0], levels[1]
        each = None if masks is None else masks.expand(2, -1, -1, -1)
        low, scores = decode(ours, embeddings, points, labels, boxes, each)
        out = theirs(
            image_embeddings=levels,
            input_points=None if points is None else points[None],
            input_labels=None if labels is None else labels[None],
            input_boxes=None if boxes is None else boxes[None],
            input_masks=masks,
            multimask_output=multimask,
        )
    kept = slice(1, 4) if multimask else slice(0, 1)
    agree(low[:, kept], out.pred_masks[0])
    agree(scores[:, kept], out.iou_scores[0])
