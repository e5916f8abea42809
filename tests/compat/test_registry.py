"""`sam_model_registry` and `Sam.to` as scripts for segment_anything use them; prompts of several lengths."""

import shutil

import numpy as np
import pytest

from sam_edge import BundleError, DeviceError, PromptError, SamPredictor, sam_model_registry
from tests.support import toy


def test_a_bundle_or_the_checkpoint_beside_it(toy_bundle, tmp_path):
    shutil.copytree(toy_bundle, tmp_path / "sam_toy-bundle")
    for name, path in (("toy", toy_bundle), ("default", toy_bundle), ("toy", tmp_path / "sam_toy.pth")):
        with sam_model_registry[name](checkpoint=str(path)) as sam:
            assert sam.to(device="cpu") is sam
            predictor = SamPredictor(sam)
            predictor.set_image(toy.picture())
            assert predictor.predict(np.array([[40, 24]]), np.array([1]))[0].shape == (3, 48, 80)


@pytest.mark.parametrize(
    ("name", "path", "says"),
    [
        ("vit_b", "{toy}", "holds toy, not vit_b"),
        ("toy", None, "needs checkpoint=BUNDLE"),
        ("toy", "none.pth", "sam-edge export --checkpoint none.pth"),
    ],
)
def test_what_cannot_be_loaded(toy_bundle, name, path, says):
    with pytest.raises(BundleError, match=says):
        sam_model_registry[name](checkpoint=path and path.format(toy=toy_bundle))


def test_a_device_that_is_not_there_moves_nothing(toy_bundle):
    with sam_model_registry["toy"](checkpoint=toy_bundle) as sam:
        with pytest.raises(DeviceError):
            sam.to("cuda:0")
        assert sam.device == "cpu" and sam.encode(toy.picture()).original_size == (48, 80)


def test_a_predictor_without_an_image(sam):
    with pytest.raises(PromptError, match="set_image"):
        SamPredictor(sam).predict(np.array([[4, 4]]), np.array([1]))


def test_prompts_with_different_numbers_of_points_are_those_alone(sam):
    embedding = sam.encode(toy.picture())
    points = [[[40, 24]], [[4, 4], [70, 40]], [[9, 9]]]
    labels = [[1], [1, 0], [0]]
    found = sam.predict(embedding, points, labels)
    for n in range(3):
        alone = sam.predict(embedding, points[n], labels[n])
        np.testing.assert_array_equal(found.masks[n], alone.masks[0])
        np.testing.assert_array_equal(found.scores[n], alone.scores[0])
    boxes = [[0, 0, 40, 20], [5, 6, 70, 40], [1, 1, 2, 2]]
    some = sam.predict(embedding, [[], *points[1:]], [[], *labels[1:]], boxes)
    np.testing.assert_array_equal(some.masks[0], sam.predict(embedding, boxes=boxes[0]).masks[0])
    with pytest.raises(PromptError, match="expected one label a point"):
        sam.predict(embedding, points, [[1], [1], [0]])
    with pytest.raises(PromptError, match="boxes has 1 entries"):
        sam.predict(embedding, points, labels, boxes[:1])
