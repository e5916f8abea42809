"""The second pass on the crop around a mask: its place, its prompts, and when the first mask stands."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from sam_edge import ImageError, Masks, PromptError, SamPredictor
from sam_edge.bundle.manifest import Manifest
from sam_edge.imaging.metrics import iou
from sam_edge.tasks.refine import crop_around
from sam_edge.testing import mock_sam

SIZE = 420, 700
BOX = [301, 97, 347, 160]
IMAGE = np.zeros((*SIZE, 3), np.uint8)


def filled(box):
    mask = np.zeros(SIZE, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


@pytest.fixture(scope="module")
def mock():
    """Draws the box it is given, on a grid so coarse that the first pass misses its edges."""
    return mock_sam(128)


@pytest.fixture(scope="module")
def precise():
    """One that takes no mask as a prompt: the mock adds it to its own, edges and all."""
    sam = mock_sam(128)
    sam.manifest = with_prompt_rules(sam, mask_prompt=False)
    return sam


def with_prompt_rules(sam, **rules):
    return Manifest({**sam.manifest.data, "prompt": {**sam.manifest.data["prompt"], **rules}})


@pytest.fixture
def spied(mock, monkeypatch):
    """The crops and prompts of second passes."""
    seen = []
    encode, predict = mock.encode, mock._segment
    monkeypatch.setattr(mock, "encode", lambda image: seen.append([image.shape[:2]]) or encode(image))

    def predicting(embedding, prompts, *arguments, **options):
        if seen and embedding.original_size == seen[-1][0]:
            seen[-1].append(prompts)
        return predict(embedding, prompts, *arguments, **options)

    monkeypatch.setattr(mock, "_segment", predicting)
    return seen


def test_edges_land_where_they_are(precise, mock):
    first = precise.predict(precise.encode(IMAGE), boxes=BOX).only_best()
    found = precise.refine(IMAGE, first, boxes=BOX)
    before, after = (iou(masks.masks[0, 0], filled(BOX)) for masks in (first, found))
    assert found.outcomes == [["refined"]] and found.masks.dtype == bool
    assert before < 0.9 and after > 0.94
    # The low-resolution logits are those of the whole image: a next prediction goes on from them.
    again = mock.predict(mock.encode(IMAGE), mask_input=found.low_res_logits[0], multimask_output=False)
    assert iou(again.masks[0, 0], filled(BOX)) > 0.8


def test_prompts_are_those_of_the_caller_in_the_crop(mock, spied):
    points, labels = [[310, 120], [5, 5], [340, 100], [0, 0]], [1, 0, 0, -1]
    first = mock.predict(mock.encode(IMAGE), points, labels, BOX).only_best()
    spied.clear()
    mock.refine(IMAGE, first, points, labels, BOX)
    (((height, width), prompts),) = spied
    assert height == width and width == round(2 * max(first.masks[0, 0].any(1).sum(), 1))
    x0, y0 = np.array([310, 120]) - prompts.point_coords[0]
    np.testing.assert_array_equal(prompts.point_coords, [[310 - x0, 120 - y0], [340 - x0, 100 - y0]])
    np.testing.assert_array_equal(prompts.point_labels, [1, 0])
    np.testing.assert_array_equal(prompts.boxes, np.array(BOX) - [x0, y0, x0, y0])
    given = mock._upscaling((height, width)).masks(prompts.mask_input[None], 0)[0, 0]
    crop = np.s_[int(y0) : int(y0) + height, int(x0) : int(x0) + width]
    assert iou(given, first.masks[0, 0][crop]) > 0.9


def test_each_of_many_prompts_is_refined_with_its_own(precise, mock):
    boxes = [BOX, [40, 40, 90, 71]]
    found = precise.refine(IMAGE, precise.predict(precise.encode(IMAGE), boxes=boxes), boxes=boxes)
    assert found.masks.shape == (2, 3, *SIZE) and [len(row) for row in found.outcomes] == [3, 3]
    for i, box in enumerate(boxes):
        assert iou(found.masks[i, 1], filled(box)) > 0.94
    ragged = [[[300, 100]], [[50, 50], [60, 60]]]
    first = mock.predict(mock.encode(IMAGE), ragged).only_best()
    assert mock.refine(IMAGE, first, ragged).masks.shape == (2, 1, *SIZE)
    with pytest.raises(PromptError, match="for 3 prompts and the masks for 2"):
        mock.refine(IMAGE, first, boxes=[*boxes, BOX])


def test_logits_stay_logits(mock):
    embedding = mock.encode(IMAGE)
    first = mock.predict(embedding, boxes=BOX, return_logits=True)
    found = mock.refine(IMAGE, first, boxes=BOX)
    masks = mock.refine(IMAGE, mock.predict(embedding, boxes=BOX), boxes=BOX).masks
    assert found.masks.dtype == np.float32
    np.testing.assert_array_equal(found.masks > 0, masks)


@pytest.mark.parametrize("outcome", ["empty", "whole image", "drifted"])
def test_the_first_mask_stands_and_it_is_said_why(mock, monkeypatch, outcome):
    box = [2, 2, 690, 410] if outcome == "whole image" else BOX
    first = mock.predict(mock.encode(IMAGE), boxes=box)
    if outcome == "empty":
        first = Masks(np.zeros_like(first.masks), first.scores, np.full_like(first.low_res_logits, -9))
    if outcome == "drifted":
        predict = mock._segment

        def elsewhere(embedding, prompts, *arguments, **options):
            found = predict(embedding, prompts, *arguments, **options)
            return replace(found, masks=-found.masks)

        monkeypatch.setattr(mock, "_segment", elsewhere)
    found = mock.refine(IMAGE, first, boxes=box)
    assert found.outcomes == [[outcome] * 3]
    for name in ("masks", "scores", "low_res_logits"):
        np.testing.assert_array_equal(getattr(found, name), getattr(first, name))


def test_a_model_that_takes_no_mask_gets_a_box(mock, spied, monkeypatch):
    monkeypatch.setattr(mock, "manifest", with_prompt_rules(mock, mask_prompt=False))
    first = mock.predict(mock.encode(IMAGE), [[320, 130]])
    found = mock.refine(IMAGE, first, [[320, 130]])
    assert spied[-1][1].mask_input is None and spied[-1][1].boxes is not None
    assert found.outcomes == [["refined"] * 3]


def test_a_model_of_few_points_gets_no_box_beside_them(mock, spied, monkeypatch):
    monkeypatch.setattr(mock, "manifest", with_prompt_rules(mock, num_points=2))
    first = mock.predict(mock.encode(IMAGE), [[320, 130]])
    mock.refine(IMAGE, first, [[320, 130]])
    assert spied[-1][1].boxes is None and len(spied[-1][1].point_coords) == 1


def test_another_image_is_refused(mock):
    first = mock.predict(mock.encode(IMAGE), boxes=BOX)
    with pytest.raises(ImageError, match="the image is 420 x 700 and the masks are 700 x 420"):
        mock.refine(np.ascontiguousarray(IMAGE.swapaxes(0, 1)), first)
    with pytest.raises(PromptError, match="NaN"):
        mock.refine(IMAGE, first, boxes=[np.nan, 0, 1, 1])


def test_the_predictor_refines_and_cleans(precise):
    predictor = SamPredictor(precise)
    predictor.set_image(IMAGE)
    masks, scores, low_res = predictor.predict(box=np.array(BOX), refine=True, min_region_area=20)
    assert masks.shape == (1, *SIZE) and scores.shape == (1,) and low_res.shape[0] == 1
    assert iou(masks[0], filled(BOX)) > 0.94
    predictor.set_embedding(precise.encode(IMAGE))
    with pytest.raises(PromptError, match=r"refine=True needs the image.*set_image"):
        predictor.predict(box=np.array(BOX), refine=True)
    with pytest.raises(PromptError, match="cleans masks, not logits"):
        predictor.predict(box=np.array(BOX), return_logits=True, min_region_area=20)


def test_predict_cleans_every_mask(sam, monkeypatch):
    """The toy model's masks of noise are all islands and holes."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 2, (12, 16, 1)) * 255, np.ones((8, 8, 3))).astype(np.uint8)
    embedding = sam.encode(image)
    before = sam.predict(embedding, [[3, 4]]).masks[0]
    after = sam.predict(embedding, [[3, 4]], min_region_area=400).masks[0]
    assert (before != after).any()
    for mask in after:
        regions, count = ndimage.label(mask, np.ones((3, 3)))
        assert count < 2 or np.bincount(regions.ravel())[1:].min() >= 400
    with pytest.raises(PromptError, match="expected 0 pixels or more"):
        sam.predict(embedding, [[3, 4]], min_region_area=-1)


sides = st.integers(1, 400)


@given(sides, sides, st.data(), st.floats(1, 300))
def test_the_crop_holds_the_mask_and_is_inside_the_image(height, width, data, least):
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    left, top, right, bottom = crop_around((x0, y0, x1, y1), (height, width), least)
    assert 0 <= left <= x0 and x1 <= right <= width and 0 <= top <= y0 and y1 <= bottom <= height
    side = max(2 * max(x1 - x0, y1 - y0), round(least))
    assert right - left == min(side, width) and bottom - top == min(side, height)
