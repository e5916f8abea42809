"""`SamPredictor` and `SamAutomaticMaskGenerator` against the published ones, with the same trained weights.

The embedded model runs inside `segment_anything`'s own code, in PyTorch, and from its bundle, in NumPy.
"""

import numpy as np
import pytest
import torch

import sam_edge
import sam_edge.compat.transforms
from sam_edge import SamAutomaticMaskGenerator, SamPredictor
from sam_edge.imaging.metrics import iou
from tools.published import published, published_around
from tools.shared.images import random_image

SIZES = [(1080, 1920), (1200, 600), (333, 517), (64, 2048)]


@pytest.fixture(scope="module")
def theirs():
    return published_around()


@pytest.fixture(scope="module")
def ours(exported):
    with sam_edge.sam_model_registry["default"](checkpoint=exported) as sam:
        yield sam


def random_prompt(rng, size):
    """Arguments of `predict`: points, a box or both, as often each."""
    height, width = size
    prompt = {}
    kind = rng.integers(3)
    if kind != 1:
        count = int(rng.integers(1, 5))
        prompt["point_coords"] = rng.uniform(0, 1, (count, 2)) * [width, height]
        prompt["point_labels"] = np.append(1, rng.integers(0, 2, count - 1))
    if kind != 0:
        corners = np.sort(rng.uniform(0, 1, (2, 2)), axis=0) * [width, height]
        prompt["box"] = corners.ravel() + np.array([0, 0, 1, 1])
    return prompt


def mask_ious(ours, theirs):
    return [iou(a, b) for a, b in zip(ours, theirs, strict=True)]


def agree(ours, theirs, size, count, seed):
    """The IoU of every mask of `count` random prompts, each with a follow-up that has a mask prompt."""
    rng = np.random.default_rng(seed)
    image = random_image(size, seed)
    mine, published_one = SamPredictor(ours), published().SamPredictor(theirs)
    for one in (mine, published_one):
        one.set_image(image)
    assert mine.input_size == published_one.input_size
    found = []
    for _ in range(count):
        prompt = random_prompt(rng, size)
        masks, scores, low_res = mine.predict(**prompt)
        expected, expected_scores, expected_low_res = published_one.predict(**prompt)
        assert masks.shape == expected.shape and masks.dtype == expected.dtype
        assert low_res.shape == expected_low_res.shape
        np.testing.assert_allclose(scores, expected_scores, atol=2e-3)
        again = {**prompt, "mask_input": expected_low_res[None, expected_scores.argmax()]}
        again["multimask_output"] = False
        found += mask_ious(masks, expected)
        found += mask_ious(mine.predict(**again)[0], published_one.predict(**again)[0])
    return found


@pytest.mark.parametrize("size", SIZES)
def test_every_mask_is_the_published_predictors(ours, theirs, size):
    found = agree(ours, theirs, size, 6, seed=size[0])
    assert min(found) >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_every_mask_of_two_hundred_prompts(ours, theirs, size):
    found = [value for seed in range(5) for value in agree(ours, theirs, size, 10, seed)]
    assert len(found) == 50 * 4 and min(found) >= 0.999


def matched(ours, theirs):
    """The share of their records that one of ours has at an IoU of 0.99."""
    best = [max((iou(a["segmentation"], b["segmentation"]) for a in ours), default=0) for b in theirs]
    return np.mean(np.array(best) >= 0.99)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((333, 517), {"points_per_side": 16}),
        (
            (240, 320),
            {"points_per_side": 8, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
        ),
    ],
)
def test_everything_is_the_published_generators(ours, theirs, size, options):
    # Thresholds that the small model's masks pass often, and fail often.
    options = {**options, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.4}
    image = random_image(size, 11)
    mine = SamAutomaticMaskGenerator(ours, **options).generate(image)
    expected = (
        published("automatic_mask_generator").SamAutomaticMaskGenerator(theirs, **options).generate(image)
    )
    assert len(expected) >= 8
    assert abs(len(mine) - len(expected)) <= 0.01 * len(expected)
    assert matched(mine, expected) >= 0.99
    first, published_first = mine[0], expected[0]
    assert first.keys() == published_first.keys()
    for key in ("bbox", "area", "crop_box", "point_coords"):
        assert first[key] == published_first[key] and type(first[key]) is type(published_first[key])
    for key in ("predicted_iou", "stability_score"):
        assert first[key] == pytest.approx(published_first[key], abs=1e-3)
    np.testing.assert_array_equal(first["segmentation"], published_first["segmentation"])


def test_batches_of_torch_tensors(ours, theirs):
    """The published notebook's way with several boxes: `transform`, then `predict_torch`."""
    image = random_image((240, 320), 3)
    boxes = torch.tensor([[10, 20, 100, 130], [50, 60, 250, 200], [200, 100, 319, 239]])
    found = []
    for predictor in (SamPredictor(ours), published().SamPredictor(theirs)):
        predictor.set_image(image[..., ::-1], image_format="BGR")
        given = predictor.transform.apply_boxes_torch(boxes.to(predictor.device), image.shape[:2])
        masks, scores, low_res = predictor.predict_torch(
            point_coords=None, point_labels=None, boxes=given, multimask_output=False
        )
        found.append((masks.cpu().numpy(), scores, low_res))
    assert found[0][0].shape == found[1][0].shape == (3, 1, 240, 320)
    assert min(mask_ious(found[0][0], found[1][0])) >= 0.999
    torch.testing.assert_close(found[0][1], found[1][1], atol=2e-3, rtol=0)


def test_the_published_forward(ours, theirs):
    image = random_image((240, 320), 4)
    answers = []
    for sam, transforms in ((ours, sam_edge.compat.transforms), (theirs, published("utils.transforms"))):
        resize = transforms.ResizeLongestSide(sam.image_encoder.img_size)
        tensor = torch.as_tensor(resize.apply_image(image)).permute(2, 0, 1).contiguous()
        points = resize.apply_coords_torch(torch.tensor([[[160, 120]], [[40, 200]]]), (240, 320))
        record = {
            "image": tensor,
            "original_size": (240, 320),
            "point_coords": points,
            "point_labels": torch.ones(2, 1),
        }
        answers.append(sam([record, record], multimask_output=True))
    for mine, expected in zip(*answers, strict=True):
        assert mine.keys() == expected.keys()
        assert min(mask_ious(mine["masks"].numpy(), expected["masks"].numpy())) >= 0.999
