"""The reference model against two independent implementations, with the same random weights.

The encoder is smaller than the published ones (the oracles' own code, their own options), so that the
comparison takes seconds; `test_vit_b_at_full_size` is the published size.
"""

from dataclasses import replace

import onnxruntime
import pytest
import torch
from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig
from transformers import SamModel as HuggingFaceSam

from sam_edge.export.architectures.model import SamModel
from sam_edge.export.checkpoints.layouts import LAYOUTS
from sam_edge.models.catalogue import CATALOGUE
from sam_edge.models.encoders import VitEncoder
from tools.make_checkpoint import write_checkpoint
from tools.published import published_around, published_sam
from tools.published.graphs import write_published

SMALL = replace(
    CATALOGUE["vit_b"],
    name="small",
    image_size=320,
    encoder=VitEncoder(embed_dim=48, depth=4, num_heads=3, global_attn_indexes=(1, 3)),
)


def randomise(module):
    """Random weights, relative-position tables and norms included, of a size that keeps signals alive."""
    generator = torch.Generator().manual_seed(7)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        noise = torch.randn(value.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            value.data = 1 + 0.2 * noise
        elif value.dim() >= 2 and "embed" not in name and "gaussian" not in name and "rel_pos" not in name:
            value.data = noise / value[0].numel() ** 0.5
        elif "gaussian" in name:
            value.data = noise
        else:
            value.data = 0.3 * noise
    return module.eval().requires_grad_(False)


def agree(ours, theirs):
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def prompts(model):
    """Points, box, points and box, mask: as arguments of segment_anything's prompt encoder."""
    side = model.image_size
    points = torch.tensor([[[30.0, 41.0], [200.0, 99.0]], [[5.0, 7.0], [120.0, 300.0]]])
    labels = torch.tensor([[1, 0], [1, 1]])
    boxes = torch.tensor([[10.0, 20.0, 100.0, 130.0], [50.0, 60.0, 250.0, side - 1.0]])
    mask = 4 * torch.randn(2, 1, side // 4, side // 4, generator=torch.Generator().manual_seed(3))
    return {
        "points": ((points, labels), None, None),
        "box": (None, boxes, None),
        "points and box": ((points, labels), boxes, None),
        "points and mask": ((points, labels), None, mask),
    }


def our_decode(ours, embeddings, points, boxes, mask, padding):
    n = 2
    coords, labels = torch.zeros(n, 0, 2), torch.zeros(n, 0)
    if points is not None:
        coords, labels = points[0], points[1].float()
    if boxes is not None:
        coords = torch.cat([coords, boxes.reshape(n, 2, 2)], 1)
        labels = torch.cat([labels, torch.tensor([[2.0, 3.0]]).expand(n, 2)], 1)
    elif padding:
        coords = torch.cat([coords, torch.zeros(n, 1, 2)], 1)
        labels = torch.cat([labels, -torch.ones(n, 1)], 1)
    low = 4 * embeddings.shape[-1]
    given = torch.zeros(n, 1, low, low) if mask is None else mask
    return ours.decode(embeddings, coords, labels, given, torch.full((n,), float(mask is not None)))


@pytest.fixture(scope="module")
def pair():
    ours = randomise(SamModel(SMALL))
    oracle = published_sam(SMALL).eval().requires_grad_(False)
    # segment-anything calls a checkpoint's keys its own; every one must be there.
    oracle.load_state_dict(ours.state_dict(), strict=True)
    return ours, oracle


@pytest.fixture(scope="module")
def images():
    return torch.randn(1, 3, SMALL.image_size, SMALL.image_size, generator=torch.Generator().manual_seed(1))


def test_the_encoder_is_segment_anythings(pair, images):
    ours, oracle = pair
    agree(ours.image_encoder(images), oracle.image_encoder(images))


@pytest.mark.parametrize("kind", ["points", "box", "points and box", "points and mask"])
def test_the_decoder_is_segment_anythings(pair, images, kind):
    ours, oracle = pair
    points, boxes, mask = prompts(SMALL)[kind]
    embeddings = oracle.image_encoder(images)
    low, scores = our_decode(ours, embeddings, points, boxes, mask, padding=True)
    for multimask, kept in ((True, slice(1, 4)), (False, slice(0, 1))):
        sparse, dense = oracle.prompt_encoder(points=points, boxes=boxes, masks=mask)
        theirs, their_scores = oracle.mask_decoder(
            image_embeddings=embeddings,
            image_pe=oracle.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        agree(low[:, kept], theirs)
        agree(scores[:, kept], their_scores)


def test_one_changed_weight_is_seen(pair, images):
    _, oracle = pair
    ours = randomise(SamModel(SMALL))
    ours.image_encoder.blocks[1].attn.rel_pos_h.data[3] += 1.0
    with pytest.raises(AssertionError):
        agree(ours.image_encoder(images), oracle.image_encoder(images))


@pytest.fixture(scope="module")
def hugging_face():
    encoder = SMALL.encoder
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=encoder.embed_dim,
            num_hidden_layers=encoder.depth,
            num_attention_heads=encoder.num_heads,
            image_size=SMALL.image_size,
            global_attn_indexes=list(encoder.global_attn_indexes),
            mlp_dim=4 * encoder.embed_dim,
            window_size=14,
            output_channels=256,
        ).to_dict(),
        prompt_encoder_config=SamPromptEncoderConfig(
            image_size=SMALL.image_size, image_embedding_size=SMALL.embedding_side
        ).to_dict(),
        mask_decoder_config=SamMaskDecoderConfig().to_dict(),
    )
    theirs = randomise(HuggingFaceSam(config))
    theirs.shared_image_embedding.positional_embedding.data = (
        theirs.prompt_encoder.shared_embedding.positional_embedding.data
    )
    (layout,) = [one for one in LAYOUTS if one.name == "huggingface" and "sam" in one.families]
    weights = layout.rename(dict(theirs.state_dict()))
    ours = SamModel(SMALL).eval().requires_grad_(False)
    ours.load_state_dict(weights, strict=True)
    return ours, theirs


def test_the_encoder_is_hugging_faces(hugging_face, images):
    ours, theirs = hugging_face
    agree(ours.image_encoder(images), theirs.get_image_embeddings(images))


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", ["points", "box", "points and box", "points and mask"])
def test_the_decoder_is_hugging_faces(hugging_face, images, kind, multimask):
    ours, theirs = hugging_face
    points, boxes, mask = prompts(SMALL)[kind]
    embeddings = theirs.get_image_embeddings(images)
    low, scores = our_decode(ours, embeddings, points, boxes, mask, padding=True)
    if mask is not None:
        # Its prompts share one mask; ours have one each.
        mask = mask[:1]
        low, scores = our_decode(ours, embeddings, points, boxes, mask.expand(2, -1, -1, -1), padding=True)
    out = theirs(
        image_embeddings=embeddings,
        input_points=None if points is None else points[0][None],
        input_labels=None if points is None else points[1][None],
        input_boxes=None if boxes is None else boxes[None],
        input_masks=mask,
        multimask_output=multimask,
    )
    kept = slice(1, 4) if multimask else slice(0, 1)
    agree(low[:, kept], out.pred_masks[0])
    agree(scores[:, kept], out.iou_scores[0])


@pytest.mark.slow
def test_vit_b_at_full_size():
    model = CATALOGUE["vit_b"]
    ours = randomise(SamModel(model))
    oracle = published_sam(model).eval().requires_grad_(False)
    oracle.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        agree(ours.image_encoder(images), oracle.image_encoder(images))


@pytest.mark.slow
def test_vit_b_is_measured_beside_the_published_code(tmp_path):
    checkpoint = tmp_path / "vit_b.pth"
    write_checkpoint("vit_b", checkpoint)
    sam = published_around(checkpoint)
    assert type(sam.image_encoder).__module__.startswith("segment_anything.")
    weights = torch.load(checkpoint, weights_only=True)
    assert sam.state_dict().keys() == weights.keys()
    with torch.inference_mode():
        write_published(sam, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == [1, 256, 64, 64]
