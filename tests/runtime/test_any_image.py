"""Images of any size, layout and kind through the whole runtime: a mask of that size, or a clear error."""

import json

import numpy as np
import pytest
from PIL import Image

from sam_edge import ImageError, SamAutomaticMaskGenerator, SamPredictor
from sam_edge.cli import main
from tests.support import toy

SIZES = [(1, 1), (1, 20000), (20000, 1), (2, 3), (8000, 8000), (63, 4097)]


def striped(height, width):
    """Bright and dark bands, (H, W, 3) uint8, however small or large."""
    rows = np.where(np.arange(height) * 4 // height % 2, 220, 40)[:, None]
    columns = np.where(np.arange(width) * 4 // width % 2, 30, 0)[None]
    return np.repeat((rows + columns).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_any_size(sam, height, width):
    image = striped(height, width)
    embedding = sam.encode(image)
    assert embedding.original_size == (height, width)
    middle = [[width // 2, height // 2]]
    masks = sam.predict(embedding, middle, [1])
    assert masks.masks.shape == (1, 3, height, width) and masks.masks.dtype == bool
    assert np.isfinite(masks.scores).all() and np.isfinite(masks.low_res_logits).all()
    whole = sam.predict(embedding, boxes=[0, 0, width, height], multimask_output=False)
    assert whole.masks.shape == (1, 1, height, width)
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    again, _, low_res = predictor.predict(np.array(middle), np.array([1]))
    np.testing.assert_array_equal(again, masks.masks[0])
    follow_up = sam.predict(embedding, middle, [1], mask_input=low_res[:1], multimask_output=False)
    assert follow_up.masks.shape == (1, 1, height, width)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_everything_of_any_size(sam, height, width):
    generator = SamAutomaticMaskGenerator(
        sam, points_per_side=2, pred_iou_thresh=0.1, stability_score_thresh=0.01, output_mode="coco_rle"
    )
    found = generator.generate(striped(height, width))
    # The toy sees nothing in a sliver.
    assert found or (height, width) != (8000, 8000)
    for one in found:
        assert one["segmentation"]["size"] == [height, width]
        x, y, w, h = one["bbox"]
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height and 0 < one["area"] <= height * width


@pytest.mark.parametrize(
    "view",
    [
        lambda image: np.asfortranarray(image),
        lambda image: np.repeat(np.repeat(image, 2, 0), 3, 1)[::2, ::3],
        lambda image: image[::-1, ::-1][::-1, ::-1],
        lambda image: np.concatenate([image, image[..., :1]], axis=2)[..., :3],
        lambda image: image.copy().view(np.recarray),
    ],
    ids=["fortran", "every second", "turned", "out of RGBA", "subclass"],
)
def test_any_layout_in_memory(sam, view):
    image = toy.picture()
    expected = sam.predict(sam.encode(image), [[40, 24]], [1])
    readonly = view(image)
    readonly.flags.writeable = False
    found = sam.predict(sam.encode(readonly), [[40, 24]], [1])
    np.testing.assert_array_equal(found.low_res_logits, expected.low_res_logits)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((0, 5, 3), np.uint8), "no pixel"),
        (np.zeros((5, 5), np.uint8), "grayscale"),
        (np.zeros((5, 5, 4), np.uint8), "RGBA"),
        (np.zeros((3, 5, 5), np.uint8), "expected an array"),
        (np.zeros((5, 5, 3), np.uint16), "16 bits"),
        (np.full((5, 5, 3), np.nan), "float64"),
        (np.zeros((5, 5, 3), bool), "bool"),
        ([[[0, 0, 0]]], "list"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(sam, image, says):
    for use in (sam.encode, SamPredictor(sam).set_image, SamAutomaticMaskGenerator(sam).generate):
        with pytest.raises(ImageError, match=says):
            use(image)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_any_kind_of_file(toy_bundle, tmp_path, capsys, mode):
    picture = Image.fromarray(toy.picture())
    picture = (
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) << 8)
        if mode == "I;16"
        else (picture.convert(mode))
    )
    path = tmp_path / ("photo.tif" if mode in ("CMYK", "F") else "photo.png")
    picture.save(path)
    assert main(["predict", str(toy_bundle), str(path), "--point", "40,24", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["masks"][0]
    assert answer["rle"]["size"] == [48, 80] and answer["area"] > 0
