"""The runtime's array functions against the libraries they replace."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco
from torch.nn import functional as F

from sam_edge.bundle.manifest import PromptRules
from sam_edge.errors import ImageError, PromptError
from sam_edge.imaging import rle
from sam_edge.imaging.postprocess import Upscaling
from sam_edge.imaging.preprocess import InputRules, preprocess, resized_size
from sam_edge.imaging.resample import resize_bilinear
from sam_edge.runtime.prompts import encode_prompts
from sam_edge.types import Prompts

RULES = InputRules((64, 64), "longest_side", True, (120.0, 110.0, 100.0), (58.0, 57.0, 56.0), 0.0)
side = st.integers(1, 90)


@settings(max_examples=60)
@given(side, side, side, side, st.integers(0, 2**32 - 1))
def test_resize_is_pillows(h, w, new_h, new_w, seed):
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    ours = resize_bilinear(image, (new_h, new_w))
    pillows = Image.fromarray(image).resize((new_w, new_h), Image.Resampling.BILINEAR)
    assert np.abs(ours.astype(int) - np.asarray(pillows).astype(int)).max() <= 1


@pytest.mark.parametrize("size", [(1080, 1920), (1200, 600), (1, 700), (700, 1)])
def test_resize_is_pillows_at_full_size(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    rules = replace(RULES, size=(1024, 1024))
    new = resized_size(size, rules)
    pillows = Image.fromarray(image).resize(new[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize_bilinear(image, new), np.asarray(pillows))


def test_preprocess_normalises_and_pads_right_and_bottom():
    image = np.full((32, 64, 3), (178, 53, 100), np.uint8)
    images, size = preprocess(image, RULES)
    assert images.shape == (1, 3, 64, 64) and size == (32, 64)
    np.testing.assert_allclose(images[0, :, 10, 10], [1, -1, 0])
    assert not images[0, :, 32:].any()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        "photo.jpg",
    ],
)
def test_an_image_of_another_kind_is_refused(image):
    with pytest.raises(ImageError, match="expected an array"):
        preprocess(image, RULES)


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 99))
def test_upscale_is_the_published_two_steps(h, w, seed):
    logits = np.random.default_rng(seed).normal(0, 5, (2, 3, 16, 16)).astype(np.float32)
    resized = resized_size((h, w), RULES)
    full = F.interpolate(torch.from_numpy(logits), (64, 64), mode="bilinear", align_corners=False)
    full = full[..., : resized[0], : resized[1]]
    full = F.interpolate(full, (h, w), mode="bilinear", align_corners=False)
    upscaling = Upscaling((16, 16), (64, 64), resized, (h, w))
    np.testing.assert_allclose(upscaling.logits(logits), full, atol=2e-4)
    clear = np.abs(full.numpy() - 1) > 1e-3
    np.testing.assert_array_equal(upscaling.masks(logits, 1.0)[clear], (full.numpy() > 1)[clear])
    for index in np.ndindex(2, 3):
        window, one = upscaling.window(logits[index], 1.0, 0.5), full[index].numpy()
        whole = np.zeros((h, w), bool)
        bottom, right = window.top + window.mask.shape[0], window.left + window.mask.shape[1]
        whole[window.top : bottom, window.left : right] = window.mask
        np.testing.assert_array_equal(whole[clear[index]], (one > 1)[clear[index]])
        assert abs(window.inner - (one > 1.5).sum()) <= (np.abs(one - 1.5) < 1e-3).sum()
        assert abs(window.outer - (one > 0.5).sum()) <= (np.abs(one - 0.5) < 1e-3).sum()


@settings(max_examples=100)
@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_rle_is_pycocotools(mask):
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = rle.encode(mask)
    assert ours["counts"] == theirs["counts"].decode() and ours["size"] == theirs["size"]
    np.testing.assert_array_equal(rle.decode(ours), mask)
    assert rle.bbox(mask) == [int(v) for v in coco.toBbox(theirs)] or not mask.any()


@pytest.mark.parametrize("size", [(108, 192), (120, 60), (1, 70), (64, 64), (9, 5)])
def test_stretching_without_antialias_is_pytorchs(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    rules = replace(RULES, resize="stretch", antialias=False, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    images, resized = preprocess(image, rules)
    planes = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    theirs = F.interpolate(planes, (64, 64), mode="bilinear", align_corners=False)
    assert resized == (64, 64)
    np.testing.assert_allclose(images, theirs, atol=1e-3)


def prompted(points, labels, boxes, original, resized, **rules):
    """In a 64 x 64 square, for a decoder that wants a padding point where there is no box."""
    wanted = PromptRules(
        **{"coordinate_size": (64, 64), "padding_point": "without_box", "num_points": None, **rules}
    )
    return encode_prompts(Prompts(points, labels, boxes), original, resized, wanted, (16, 16))[:2]


def test_prompts_are_scaled_per_axis_and_boxes_follow_points():
    coords, labels = prompted([[50, 20]], [0], [10, 20, 30, 40], (100, 200), (50, 50))
    np.testing.assert_allclose(coords, [[[12.5, 10], [2.5, 10], [7.5, 20]]])
    np.testing.assert_array_equal(labels, [[0, 2, 3]])


def test_a_padding_point_is_added_only_without_a_box():
    coords, labels = prompted(np.ones((3, 2, 2)), None, None, (9, 9), (9, 9))
    assert coords.shape == (3, 3, 2)
    np.testing.assert_array_equal(labels[0], [1, 1, -1])
    assert prompted(None, None, np.array([[0, 0, 9, 9]]), (9, 9), (9, 9))[1].shape == (1, 2)


def test_some_decoders_want_a_padding_point_always_or_a_fixed_number_of_points():
    box, size = np.array([[0, 0, 9, 9]]), (9, 9)
    assert prompted(None, None, box, size, size, padding_point="always")[1].tolist() == [[2, 3, -1]]
    assert prompted(None, None, box, size, size, num_points=4)[1].tolist() == [[2, 3, -1, -1]]
    assert prompted([[1, 1]], None, box, size, size, num_points=3)[1].tolist() == [[1, 2, 3]]
    with pytest.raises(PromptError, match="has 4 points, box corners included; this model takes at most 3"):
        prompted([[1, 1], [2, 2]], None, box, size, size, num_points=3)


@pytest.mark.parametrize(
    ("points", "labels", "boxes", "says"),
    [
        ([[100, 5]], [1], None, "outside the image"),
        ([[5, -1]], [1], None, "outside the image"),
        ([[5, 5]], [7], None, "label 7 is unknown"),
        ([[5, 5]], [1, 0], None, "one label a point"),
        ([[5, float("nan")]], [1], None, "NaN"),
        ([5, 5], [1], None, "expected"),
        (None, [1], None, "without point_coords"),
        (None, None, [30, 5, 10, 20], "x0 < x1"),
        (None, None, [0, 0, 101, 20], "outside the image"),
        (None, None, [0, 0, 1], "expected"),
        ([[5, 5]], [1], [[0, 0, 5, 5], [0, 0, 6, 6]], "same number"),
        (None, None, None, "no prompt"),
    ],
)
def test_bad_prompts_are_refused(points, labels, boxes, says):
    with pytest.raises(PromptError, match=says):
        prompted(points, labels, boxes, (50, 100), (32, 64))
