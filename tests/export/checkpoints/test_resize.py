"""Inputs of another size than the model's own: the tables, the export, and what is said of the cost."""

import json
import os
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from pycocotools import mask as coco
from torch.nn import functional as F
from transformers import ViTConfig
from transformers.models.vit.modeling_vit import ViTEmbeddings

import sam_edge
from sam_edge.benchmarks.measure.pytorch import PyTorch, variant_of
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.cli import main
from sam_edge.errors import PromptError, SamEdgeError
from sam_edge.export.architectures.model import SamModel
from sam_edge.export.checkpoints.read import Loaded, build_reference, expected_shapes, load_checkpoint
from sam_edge.export.checkpoints.resize import resize
from sam_edge.export.graphs.onnx import write_encoder
from sam_edge.export.optimize.fuse import fuse
from sam_edge.models.catalogue import CATALOGUE, HERE
from sam_edge.models.encoders import HieraEncoder
from sam_edge.runtime.opener import OpenedGraphs
from sam_edge.runtime.sam import Sam
from sam_edge.verify.parity import run_parity
from tests.export.architectures.test_oracle_mobile_sam import randomise as randomise_mobile_sam
from tests.export.architectures.test_oracle_sam import SMALL, agree, our_decode, prompts, randomise
from tools import sizes
from tools.golden.seeded import seeded_image, seeded_weights
from tools.published import published_mobile_sam, published_sam

EMBEDDED = HERE / CATALOGUE["sam_edge_tiny"].checkpoint.file


def hugging_faces_positions(table, size):
    """(1, s, s, C) at another size, by `transformers`' ViT, whose table has a class token's row before."""
    _, side, _, dim = table.shape
    config = ViTConfig(image_size=16 * side, patch_size=16, hidden_size=dim)
    embeddings = ViTEmbeddings(config)
    rows = torch.cat([torch.zeros(1, 1, dim), table.flatten(1, 2)], dim=1)
    embeddings.position_embeddings = torch.nn.Parameter(rows)
    tokens = torch.zeros(1, 1 + (size // 16) ** 2, dim)
    found = embeddings.interpolate_pos_encoding(tokens, size, size)[:, 1:]
    return found.reshape(1, size // 16, size // 16, dim).detach()


@pytest.mark.parametrize("size", [160, 240, 448])
def test_a_vit_at_another_size_is_segment_anythings(size):
    """Its own code interpolates the relative positions, of tables that keep their length."""
    own = randomise(SamModel(SMALL))
    loaded = resize(Loaded(SMALL, dict(own.state_dict()), "published"), size)
    ours = build_reference(loaded)
    encoder = published_sam(SMALL).requires_grad_(False)
    encoder.load_state_dict(own.state_dict(), strict=True)
    encoder = encoder.image_encoder
    encoder.pos_embed = torch.nn.Parameter(hugging_faces_positions(own.image_encoder.pos_embed, size))
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    embeddings = encoder(image)
    agree(ours.image_encoder(image), embeddings)

    small = replace(SMALL, image_size=size)
    oracle = published_sam(small).requires_grad_(False)
    parts = ("prompt_encoder.", "mask_decoder.")
    decoder = {key: value for key, value in own.state_dict().items() if key.startswith(parts)}
    assert not oracle.load_state_dict(decoder, strict=False).unexpected_keys
    for points, boxes, mask in prompts(small).values():
        sparse, dense = oracle.prompt_encoder(points=points, boxes=boxes, masks=mask)
        theirs, their_scores = oracle.mask_decoder(
            image_embeddings=embeddings,
            image_pe=oracle.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        low, scores = our_decode(ours, embeddings, points, boxes, mask, padding=True)
        agree(low[:, 1:], theirs)
        agree(scores[:, 1:], their_scores)


def test_mobile_sam_at_another_size_is_the_published_one():
    code, size = published_mobile_sam(), 384
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    sam = code.sam_model_registry["vit_t"]()
    sam.image_encoder = type(sam.image_encoder)(
        img_size=size,
        in_chans=3,
        num_classes=1000,
        embed_dims=[64, 128, 160, 320],
        depths=[2, 2, 6, 2],
        num_heads=[2, 4, 5, 10],
        window_sizes=[7, 7, 14, 7],
        mlp_ratio=4.0,
        mbconv_expand_ratio=4.0,
        local_conv_size=3,
    )
    encoder = sam.image_encoder

    def features(x):
        # As published, which has a 64 for the side.
        x = encoder.patch_embed(x)
        for layer in encoder.layers:
            x = layer(x)
        return encoder.neck(x.reshape(1, size // 16, size // 16, -1).permute(0, 3, 1, 2))

    encoder.forward_features = features
    oracle = randomise_mobile_sam(sam, image)
    model = CATALOGUE["mobile_sam"]
    weights = {key: value for key, value in oracle.state_dict().items() if key in expected_shapes(model)}
    ours = build_reference(resize(Loaded(model, weights, "published"), size))
    agree(ours.image_encoder(image), oracle.image_encoder(image))


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_model_can_be_smaller_and_larger(name):
    model = CATALOGUE[name]
    weights = {key: torch.empty(shape, device="meta") for key, shape in expected_shapes(model).items()}
    step = model.encoder.size_step
    for size in (model.image_size // 2 // step * step, model.image_size + step):
        loaded = resize(Loaded(model, weights, "published"), size)
        assert {key: tuple(value.shape) for key, value in loaded.weights.items()} == expected_shapes(
            loaded.model
        )
        sam = build_reference(loaded)
        with torch.device("meta"), torch.no_grad():
            embeddings, *extra = sam.encode(torch.zeros(1, 3, size, size))
        side = size // model.stride
        assert embeddings.shape == (1, model.decoder.dim, side, side)
        for one, found in zip(model.extra_embeddings, extra, strict=True):
            assert found.shape == (1, one.channels, one.scale * side, one.scale * side)
        with pytest.raises(SamEdgeError, match=f"a multiple of {step} from"):
            resize(Loaded(model, weights, "published"), size + step // 2)


def test_a_pyramid_is_exported_at_another_size(tmp_path):
    """SAM 2's kind of encoder, whose graph has constants in the form of plain numbers."""
    encoder = HieraEncoder(embed_dim=24, stages=(1, 1, 2, 1), global_att_blocks=(3,))
    own = replace(CATALOGUE["sam2.1_hiera_tiny"], name="small", image_size=128, encoder=encoder)
    loaded = resize(Loaded(own, seeded_weights(expected_shapes(own)), "published"), 96)
    sam, image = build_reference(loaded), seeded_image(96)
    write_encoder(fuse(sam), loaded.model, tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    for found, expected in zip(session.run(None, {"images": image.numpy()}), sam.encode(image), strict=True):
        agree(torch.from_numpy(found), expected)


def test_the_models_own_size_changes_nothing():
    loaded = load_checkpoint(EMBEDDED)
    same = resize(loaded, 320)
    assert same.model == loaded.model and same.weights == loaded.weights


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("small") / "bundle"
    assert main(["export", "--imgsz", "256", "--out", str(out)]) == 0
    return out


def test_a_bundle_of_smaller_inputs(small, photo, capsys):
    data = json.loads((small / "manifest.json").read_text())
    assert data["input"]["size"] == data["prompt"]["coordinate_size"] == [256, 256]
    assert data["mask"]["size"] == [64, 64]
    shapes = {t["name"]: t["shape"] for t in data["variants"][0]["decoder"]["inputs"]}
    assert shapes["image_embeddings"][1:] == [128, 16, 16] and shapes["mask_input"][2:] == [64, 64]
    # 0.64 of the convolutions, and less of attention.
    assert 0.5 < data["model"]["encoder_gmacs"] / 1.331 < 0.64
    assert main(["verify", str(small), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["variants"]
    assert row["passed"] and row["mean_iou"] >= 0.999
    astronaut = str(HERE / "photos" / "astronaut.jpg")
    assert main(["predict", str(small), astronaut, "--point", "225,120", "--json"]) == 0
    mask = coco.decode(json.loads(capsys.readouterr().out)["masks"][0]["rle"])
    assert mask[120, 225] and 0.005 < mask.mean() < 0.5


def coco_iou(a, b):
    a, b = (coco.encode(np.asfortranarray(one, np.uint8)) for one in (a, b))
    return float(coco.iou([a], [b], [0])[0, 0])


def test_the_cost_is_what_users_would_see(small, exported):
    """Recomputed from the two bundles, with the runtime and pycocotools."""
    recorded = open_bundle(small).manifest.resized_from
    golden = read_golden(open_bundle(exported).check_golden())
    found = []
    with sam_edge.load(small, "onnxruntime", "cpu") as sam:
        embeddings = [sam.encode(image) for image in golden.images]
        for prompt in golden.prompts:
            mask_input = prompt.mask_input
            if mask_input is not None:
                given = torch.from_numpy(mask_input)[None]
                mask_input = F.interpolate(given, (64, 64), mode="bilinear")[0].numpy()
            prompts = replace(prompt, mask_input=mask_input).prompts
            result = sam._segment(embeddings[prompt.image_index], prompts, "all")
            best = 1 + int(prompt.scores[1:].argmax())
            found.append(coco_iou(result.masks[0, best], prompt.masks[best]))
    assert recorded.size == (320, 320) and recorded.num_prompts == len(found)
    assert recorded.mean_iou == pytest.approx(np.mean(found), abs=2e-3)
    assert recorded.min_iou == pytest.approx(np.min(found), abs=1e-2)
    assert 0.3 < recorded.mean_iou < 1 and recorded.boundary_iou < recorded.mean_iou


def test_info_says_what_it_costs(small, exported, capsys):
    mean = open_bundle(small).manifest.resized_from.mean_iou
    assert main(["info", str(small)]) == 0
    said = capsys.readouterr().out
    assert "input 256 x 256 (published: 320 x 320)" in said and f"mean IoU {mean:.4f}" in said
    assert main(["info", str(exported)]) == 0
    assert " of 320 x 320" not in capsys.readouterr().out


def test_the_graphs_say_what_it_costs(small):
    import onnx

    proto = onnx.load(small / "onnx-fp32" / "encoder.onnx")
    facts = json.loads({p.key: p.value for p in proto.metadata_props}["sam_edge"])
    assert facts["resized_from"] == open_bundle(small).manifest.resized_from.to_json()


def test_embeddings_of_another_size_are_refused(small, exported):
    image = read_golden(small / "golden.npz").images[0]
    with sam_edge.load(small) as sam:
        embedding = sam.encode(image)
    with sam_edge.load(exported) as sam, pytest.raises(PromptError, match="at another input size"):
        sam.predict(embedding, point_coords=[[9, 9]], point_labels=[1])


def test_pytorch_is_measured_at_the_bundles_size(small):
    bundle = open_bundle(small)
    backend, variant = PyTorch("pytorch-fp32", EMBEDDED, 256), variant_of(bundle, "pytorch-fp32")
    parts = {
        part: backend.open(small / variant.graphs[part].path, "cpu", None) for part in ("encoder", "decoder")
    }
    report = run_parity(
        Sam(OpenedGraphs(bundle, variant, "pytorch", parts)), read_golden(small / "golden.npz"), "fp32"
    )
    assert report.mean_iou >= 0.999


def test_sizes_side_by_side(small, exported):
    rows = sizes.measure([exported, small], "fp32", threads=1, rounds=1)
    assert [row["input_size"] for row in rows] == [320, 256]
    assert rows[0]["resized_from"] is None and rows[1]["resized_from"]["size"] == [320, 320]


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ("250", "expected a multiple of 16 from 64 to 2048, for example 240 or 256"),
        ("0", "expected a multiple of 16 from 64 to 2048, for example 64"),
        ("32", "expected a multiple of 16 from 64 to 2048, for example 64"),
        ("-256", "expected a number of pixels from 64 to 2048"),
        ("large", "expected a number of pixels from 64 to 2048"),
        ("256.0", "expected a number of pixels from 64 to 2048"),
        ("", "expected a number of pixels from 64 to 2048"),
        ("99999999", "expected a multiple of 16 from 64 to 2048, for example 2048"),
        ("9" * 5000, "expected a number of pixels from 64 to 2048"),
    ],
)
def test_bad_sizes(size, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", f"--imgsz={size}", "--out", "b"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and says in err and err.count("\n") == 1
    assert not os.listdir(".")
