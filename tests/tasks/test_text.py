"""Masks by text: CLIP's resizing, the crop shown to CLIP for each mask, and the order of results."""

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sam_edge import BundleError, ImageError, PromptError
from sam_edge.bundle.manifest import ClipRules
from sam_edge.bundle.variant import ClipVariant, Graph, Tensor
from sam_edge.imaging.resample import resize_bicubic
from sam_edge.models.photos import PHOTOS, read_photo
from sam_edge.tasks.clip import Clip, normalise, preprocess
from sam_edge.tasks.everything import EverythingOptions
from sam_edge.tasks.text import mask_crop, mask_features, predict_text

RULES = ClipRules(32, (100.0, 120.0, 140.0), (50.0, 60.0, 70.0), 8, 9, 3, 10.0)
GREY = np.array(RULES.mean, np.float32)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pillows(image, size):
    """Columns first, as the Pillow that CLIP was trained with; recent ones choose the order."""
    height, width = size
    columns = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(columns.resize((width, height), Image.Resampling.BICUBIC))


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers(1, 90))
def test_bicubic_is_pillows_to_the_bit(height, width, new_height, new_width):
    image, size = noise(height, width), (new_height, new_width)
    np.testing.assert_array_equal(resize_bicubic(image, size), pillows(image, size))


@pytest.mark.parametrize("size", [(224, 398), (37, 2000), (1500, 3), (333, 517)])
def test_bicubic_of_larger_images(size):
    np.testing.assert_array_equal(resize_bicubic(noise(333, 517), size), pillows(noise(333, 517), size))


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("short", [40, 224, 336, 700])
def test_photographs_are_the_installed_pillows_too(photo, turn, short):
    image = np.ascontiguousarray(np.rot90(read_photo(photo), turn))
    size = tuple(short * side // min(image.shape[:2]) for side in image.shape[:2])
    wanted = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(resize_bicubic(image, size) - wanted).max() <= 1


@settings(max_examples=30)
@given(st.data())
def test_a_window_is_that_part_of_the_whole(data):
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, columns = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    image = noise(23, 31)
    whole = resize_bicubic(image, (height, width))
    part = resize_bicubic(image, (height, width), (top, left, rows, columns))
    np.testing.assert_array_equal(part, whole[top : top + rows, left : left + columns])


@pytest.mark.parametrize("size", [(48, 80), (81, 47), (32, 32), (33, 34), (5, 9), (1, 1), (64, 300)])
def test_images_are_prepared_as_published(size):
    # Resize(32, BICUBIC), CenterCrop(32), ToTensor, Normalize, with Pillow.
    image = noise(*size)
    height, width = size
    short = min(size)
    picture = Image.fromarray(pillows(image, (int(32 * height / short), int(32 * width / short))))
    left, top = (round((side - 32) / 2.0) for side in picture.size)
    cropped = np.asarray(picture.crop((left, top, left + 32, top + 32))).astype(np.float32)
    wanted = ((cropped - RULES.mean) / RULES.std).transpose(2, 0, 1)[None]
    ours = preprocess(image, RULES)
    assert ours.dtype == np.float32 and ours.shape == (1, 3, 32, 32)
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


def test_a_very_long_image_takes_little_memory():
    assert preprocess(noise(1, 200_000), RULES).shape == (1, 3, 32, 32)


class Seen:
    """A session that gives the mean of what it is given, and notes the shapes."""

    device = "cpu"

    def __init__(self):
        self.shapes = []

    def run(self, inputs):
        ((name, array),) = inputs.items()
        self.shapes.append(array.shape)
        if name == "images":
            return {"image_features": array.mean((2, 3))}
        return {"text_features": array[:, :3].astype(np.float32)}

    def close(self):
        pass


def graph(name, output, batch):
    return Graph("nowhere", (Tensor(name, "float32", (batch,)),), (Tensor(output, "float32", ()),))


def toy_clip(batch="num_images"):
    variant = ClipVariant(
        "onnx-fp32",
        image_encoder=graph("images", "image_features", batch),
        text_encoder=graph("input_ids", "text_features", batch),
    )
    return Clip(RULES, variant, None, Seen(), Seen())


def test_images_go_in_batches():
    clip = toy_clip()
    images = [noise(20 + i, 30, i) for i in range(19)]
    features = clip.encode_images(images)
    assert [shape[0] for shape in clip._image.shapes] == [8, 8, 3]
    wanted = normalise(np.concatenate([preprocess(i, RULES) for i in images]).mean((2, 3)))
    np.testing.assert_allclose(features, wanted, atol=1e-6)
    assert clip.encode_images([]).shape == (0, 3)


@pytest.mark.parametrize("fixed", [1, 4])
def test_graphs_for_a_fixed_number_of_images(fixed):
    clip, any_number = toy_clip(fixed), toy_clip()
    images = [noise(20, 30, i) for i in range(7)]
    np.testing.assert_allclose(clip.encode_images(images), any_number.encode_images(images), atol=1e-6)
    assert {shape[0] for shape in clip._image.shapes} == {fixed}
    ids = np.arange(5 * 8, dtype=np.int32).reshape(5, 8)
    assert clip.encode_tokens(ids).shape == (5, 3)


def box_mask(height, width, top, left, h, w):
    mask = np.zeros((height, width), bool)
    mask[top : top + h, left : left + w] = True
    return mask


def test_a_crop_shows_the_mask_sharp_and_the_rest_blurred():
    image = np.zeros((120, 200, 3), np.uint8)
    image[:, ::2] = 255  # stripes, which blurring makes grey
    mask = box_mask(120, 200, 40, 80, 40, 40)
    crop = mask_crop(image, mask, 60, GREY).astype(int)  # the square is 60 pixels: nothing is resized
    np.testing.assert_array_equal(crop[12:48, 12:48], image[42:78, 82:118])
    assert np.abs(crop[:6, 15:45] - 127).max() <= 8 and np.abs(crop[-6:, 15:45] - 127).max() <= 8


@pytest.mark.parametrize(
    "mask",
    [
        box_mask(40, 60, 0, 0, 3, 4),
        box_mask(40, 60, 30, 50, 10, 10),
        box_mask(40, 60, 0, 0, 40, 60),
        box_mask(40, 60, 10, 0, 1, 60),
        box_mask(40, 60, 39, 59, 1, 1),
        box_mask(1, 900, 0, 100, 1, 700),
        box_mask(900, 1, 0, 0, 900, 1),
        np.zeros((40, 60), bool),
    ],
)
def test_crops_of_masks_anywhere(mask):
    crop = mask_crop(np.full((*mask.shape, 3), 77, np.uint8), mask, 32, GREY)
    assert crop.shape == (32, 32, 3) and crop.dtype == np.uint8
    if min(mask.shape) > 1 and mask.any():
        assert (crop == 77).any()


def test_beyond_the_image_is_grey():
    crop = mask_crop(np.zeros((30, 60, 3), np.uint8), box_mask(30, 60, 0, 0, 30, 60), 90, GREY)
    assert np.abs(crop[0] - GREY).max() < 5 and np.abs(crop[-1] - GREY).max() < 5
    assert (crop[31:59, 16:74] == 0).all()


class Colours(Clip):
    """A text is a colour; an image is what its mean is; cosine says how alike they are."""

    WORDS = types.MappingProxyType({"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)})

    def __init__(self):
        super().__init__(
            ClipRules(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 8, 9, 3, 10.0), {}, None, Seen(), Seen()
        )

    def encode_text(self, texts):
        return normalise(np.array([self.WORDS[text.split()[-1]] for text in texts], np.float32))

    def encode_images(self, images, batch=8):
        return normalise(np.array([image.reshape(-1, 3).mean(0) for image in images], np.float32))


@pytest.fixture
def scene():
    """Three squares in their colours on black, and everything-mode's records of them."""
    image, records = np.zeros((60, 180, 3), np.uint8), []
    for channel in (0, 1, 2):
        mask = box_mask(60, 180, 15, 15 + 60 * channel, 30, 30)
        image[mask, channel] = 255
        records.append({"segmentation": mask, "area": 900, "bbox": [15 + 60 * channel, 15, 30, 30]})
    rules = types.SimpleNamespace(pred_iou_thresh=0.7, stability_score_thresh=0.6)
    return types.SimpleNamespace(clip=Colours(), manifest=rules), image, records


@pytest.mark.parametrize(("word", "index"), [("red", 0), ("green", 1), ("blue", 2)])
def test_the_mask_that_fits_the_text_comes_first(scene, word, index):
    sam, image, records = scene
    found = predict_text(sam, image, word, masks=records)
    np.testing.assert_array_equal(found.masks, records[index]["segmentation"][None])
    np.testing.assert_array_equal(found.boxes, [[15 + 60 * index, 15, 30, 30]])
    assert found.scores.shape == (1,) and found.scores[0] > 0.99
    assert found.probabilities[0] > 0.9


def test_all_of_them_best_first(scene):
    sam, image, records = scene
    found = predict_text(sam, image, "green", top_k=None, masks=records)
    assert found.masks.shape == (3, 60, 180) and found.masks.dtype == bool
    assert (np.diff(found.scores) <= 0).all()
    assert found.probabilities.sum() == pytest.approx(1)


def test_a_threshold_leaves_out(scene):
    sam, image, records = scene
    assert len(predict_text(sam, image, "green", None, 0.5, masks=records).scores) == 1
    none = predict_text(sam, image, "green", None, 1.1, masks=records)
    assert none.masks.shape == (0, 60, 180) and none.boxes.shape == (0, 4)
    assert predict_text(sam, image, "green", masks=[]).masks.shape == (0, 60, 180)


def test_templates_are_averaged(scene):
    sam, image, records = scene
    found = predict_text(sam, image, "red", None, templates=["a {}", "not {} but green"], masks=records)
    assert found.scores[0] == pytest.approx(found.scores[1], abs=0.01) == pytest.approx(0.5**0.5, abs=0.01)


def test_everything_mode_runs_where_no_masks_are_given(scene, monkeypatch):
    sam, image, records = scene

    def generate(model, given, options):
        assert model is sam and given is image
        assert options == EverythingOptions(
            options.point_grids, pred_iou_thresh=0.7, stability_score_thresh=0.6
        )
        return records

    monkeypatch.setattr("sam_edge.tasks.text.generate_masks", generate)
    np.testing.assert_array_equal(predict_text(sam, image, "blue").masks[0], records[2]["segmentation"])


def test_features_of_masks_compare_with_many_texts(scene):
    sam, image, records = scene
    features = mask_features(sam.clip, image, [record["segmentation"] for record in records])
    scores = sam.clip.encode_text(["red", "green", "blue"]) @ features.T
    np.testing.assert_array_equal(scores.argmax(0), [0, 1, 2])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"text": ""}, "expected some words"),
        ({"text": "  "}, "expected some words"),
        ({"text": ["a", "b"]}, "expected some words"),
        ({"text": "red", "top_k": 0}, "top_k is 0"),
        ({"text": "red", "top_k": True}, "top_k is True"),
        ({"text": "red", "threshold": float("nan")}, "threshold is nan"),
        ({"text": "red", "templates": "a photo of {}"}, "templates"),
        ({"text": "red", "templates": ["a photo"]}, "templates"),
        ({"text": "red", "templates": []}, "templates"),
        ({"text": "red", "masks": [{"segmentation": {"size": [60, 180], "counts": ""}}]}, "binary_mask"),
        ({"text": "red", "masks": [{"segmentation": np.zeros((5, 5), bool)}]}, "on this image"),
    ],
)
def test_arguments_that_make_no_sense(scene, arguments, says):
    sam, image, _ = scene
    with pytest.raises(PromptError, match=says):
        predict_text(sam, image, **arguments)


def test_an_image_that_is_none(scene):
    with pytest.raises(ImageError):
        predict_text(scene[0], np.zeros((5, 5)), "red")


def test_a_bundle_without_clip_says_how_to_export_it(sam):
    with pytest.raises(BundleError, match="--clip FOLDER"):
        sam.predict_text(np.zeros((20, 20, 3), np.uint8), "a dog")
