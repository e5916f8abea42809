"""SAM's own text route: embeddings given as sparse prompt tokens, against the reference with the tokens."""

import json
import os

import numpy as np
import pytest
import torch

from sam_edge import PromptError, load
from sam_edge.cli import main
from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.models.catalogue import CATALOGUE, HERE
from sam_edge.models.photos import read_photo

DIM = CATALOGUE["sam_edge_tiny"].decoder.dim


@pytest.fixture(scope="module")
def reference():
    return build_reference(load_checkpoint(HERE / CATALOGUE["sam_edge_tiny"].checkpoint.file))


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def sam(request, with_texts):
    with load(with_texts, backend=request.param) as sam:
        yield sam


def tokens(n, count):
    return np.random.default_rng(count).standard_normal((n, count, DIM)).astype(np.float32)


def near(ours, theirs):
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)


PROMPTS = {
    "alone": ({}, [[0, 0]], [-1]),
    "point": ({"point_coords": [[[200, 100]]]}, [[200, 100], [0, 0]], [1, -1]),
    "box": ({"boxes": [[50, 60, 300, 200]]}, [[50, 60], [300, 200]], [2, 3]),
    "point and box": (
        {"point_coords": [[[200, 100]]], "boxes": [[50, 60, 300, 200]]},
        [[200, 100], [50, 60], [300, 200]],
        [1, 2, 3],
    ),
}


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("count", [1, 3])
def test_the_masks_are_the_references(sam, reference, kind, count):
    given, coords, labels = PROMPTS[kind]
    image = read_photo("astronaut.jpg")
    embedding, texts = sam.encode(image), tokens(1, count)
    found = sam.predict(embedding, **given, text_embeddings=texts)
    height, width = image.shape[:2]
    scale = np.array([embedding.resized_size[1] / width, embedding.resized_size[0] / height])
    # The reference's parts, put together here: its sparse tokens, then those of the text.
    with torch.inference_mode():
        points = torch.from_numpy(np.array([coords]) * scale).float()
        sparse = reference.prompt_encoder.embed_points(points, torch.tensor([labels]).float())
        low = sam.manifest.mask_size
        dense = reference.prompt_encoder.embed_masks(torch.zeros(1, 1, *low), torch.zeros(1))
        wanted, scores = reference.mask_decoder(
            torch.from_numpy(embedding.image_embeddings),
            reference.prompt_encoder.dense_positions(),
            torch.cat([sparse, torch.from_numpy(texts)], dim=1),
            dense,
        )
    near(found.low_res_logits, wanted[:, 1:].numpy())
    near(found.scores, scores[:, 1:].numpy())


def test_a_batch_gives_what_its_prompts_give_alone(sam):
    embedding, texts = sam.encode(read_photo("cat.jpg")), tokens(10, 2)
    points = [[[30 + 20 * i, 90]] for i in range(10)]
    together = sam.predict(embedding, points, text_embeddings=texts)
    for i in (0, 9):
        alone = sam.predict(embedding, points[i], text_embeddings=texts[i])
        near(together.low_res_logits[i : i + 1], alone.low_res_logits)


def test_without_texts_the_masks_are_those_of_the_plain_decoder(sam, exported):
    image = read_photo("cat.jpg")
    with load(exported) as plain:
        wanted = plain.predict(plain.encode(image), [[200, 150]])
    found = sam.predict(sam.encode(image), [[200, 150]])
    near(found.low_res_logits, wanted.low_res_logits)


def test_a_text_changes_the_masks(sam):
    embedding = sam.encode(read_photo("cat.jpg"))
    one, two = (
        sam.predict(embedding, [[200, 150]], text_embeddings=k * tokens(1, 1)).low_res_logits for k in (0, 3)
    )
    assert np.abs(one - two).max() > 0.1


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (np.zeros((1, 1, 5)), f"expected {DIM} numbers a token"),
        (np.zeros(DIM), "has shape"),
        (np.zeros((1, 0, DIM)), "has shape"),
        (np.zeros((3, 1, DIM)), "different numbers of prompts"),
        (np.full((1, 1, DIM), np.nan), "NaN"),
        ("a dog", "should be numbers"),
    ],
)
def test_texts_that_are_none(sam, texts, says):
    embedding = sam.encode(read_photo("cat.jpg"))
    with pytest.raises(PromptError, match=says):
        sam.predict(embedding, [[200, 150]], text_embeddings=texts)


def test_a_bundle_without_the_input_says_so(exported):
    with load(exported) as sam:
        embedding = sam.encode(read_photo("cat.jpg"))
        with pytest.raises(PromptError, match="--text-embeddings"):
            sam.predict(embedding, text_embeddings=tokens(1, 1))


def test_the_manifest_says_so(with_texts, exported):
    assert json.loads((with_texts / "manifest.json").read_text())["prompt"]["text_embeddings"] is True
    assert "text_embeddings" not in json.loads((exported / "manifest.json").read_text())["prompt"]
    decoder = json.loads((with_texts / "manifest.json").read_text())["variants"][1]["decoder"]
    shape = {t["name"]: t["shape"] for t in decoder["inputs"]}["text_embeddings"]
    assert shape == ["num_prompts", "num_texts", DIM]
    assert main(["verify", str(with_texts)]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--format", "coreml"], "not supported by Core ML"),
        (["--format", "openvino"], "needs --dynamic"),
        (["--compat", "segment-anything"], "does not support --text-embeddings"),
    ],
)
def test_what_cannot_have_texts_is_refused_at_once(tmp_path, capsys, arguments, says):
    out = tmp_path / "b"
    assert main(["export", "--text-embeddings", *arguments, "--out", str(out)]) == 2
    assert says in capsys.readouterr().err and not os.listdir(tmp_path)
