"""`sam-edge everything` and the generator on the toy bundle, against pycocotools."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sam_edge import PromptError, SamAutomaticMaskGenerator
from sam_edge.cli import main
from sam_edge.imaging import rle
from sam_edge.tasks.amg import generate_crop_boxes, nms
from tests.support import toy

LOW = ["--pred-iou-thresh", "0.1", "--stability-score-thresh", "0.1", "--points-per-side", "4"]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(toy.picture()).save(path)
    return path


def test_coco_json_that_pycocotools_reads(capsys, toy_bundle, photo, tmp_path):
    out = tmp_path / "deep" / "out"
    arguments = ["everything", str(toy_bundle), str(photo), "--out", str(out), *LOW, "--json"]
    assert main(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["device"] == "cpu" and answer["count"] > 0
    data = COCO(answer["annotations"])
    image = data.loadImgs(data.getImgIds())[0]
    assert (image["height"], image["width"], image["file_name"]) == (48, 80, "photo.png")
    annotations = data.loadAnns(data.getAnnIds())
    assert len(annotations) == answer["count"]
    for annotation in annotations:
        mask = data.annToMask(annotation)
        assert mask.shape == (48, 80) and mask.sum() == annotation["area"] > 0
        assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
        assert annotation["predicted_iou"] > 0.1 and 0.1 <= annotation["stability_score"] <= 1
    picture = np.asarray(Image.open(answer["picture"]))
    assert picture.shape == (48, 80, 3) and (picture != toy.picture()).any()
    assert sorted(path.name for path in out.iterdir()) == ["annotations.json", "masks.png"]


def test_no_mask_is_said_and_still_valid(capsys, toy_bundle, photo, tmp_path):
    arguments = ["everything", str(toy_bundle), str(photo), "--out", str(tmp_path)]
    assert main([*arguments, "--pred-iou-thresh", "2"]) == 0
    assert "0 masks" in (said := capsys.readouterr().out) and "lower --pred-iou-thresh" in said
    assert COCO(str(tmp_path / "annotations.json")).getAnnIds() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--points-per-side", "0"], "points_per_side"),
        (["--points-per-side", "100000"], "expected at most 1024"),
        (["--crop-n-layers", "30"], "expected at most 1024 and 8"),
        (["--points-per-batch", "0"], "points_per_batch"),
        (["--crop-n-layers", "-1"], "crop_n_layers"),
        (["--crop-n-layers", "3", "--crop-n-points-downscale-factor", "9"], "last layer"),
        (["--out", "{photo}"], "cannot be created"),
        (["--out", "{photo}/deeper"], "cannot be created"),
    ],
)
def test_bad_input(capsys, toy_bundle, photo, tmp_path, options, says):
    options = [option.format(photo=photo) for option in options]
    out = [] if "--out" in options else ["--out", str(tmp_path / "out")]
    assert main(["everything", str(toy_bundle), str(photo), *out, *options]) == 2
    printed = capsys.readouterr()
    assert says in printed.err and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_the_photo_is_never_written_over(capsys, toy_bundle, tmp_path):
    photo = tmp_path / "masks.png"
    Image.fromarray(toy.picture()).save(photo)
    before = photo.read_bytes()
    assert main(["everything", str(toy_bundle), str(photo), "--out", str(tmp_path)]) == 2
    assert photo.read_bytes() == before and "read by this command" in capsys.readouterr().err


def test_output_modes_hold_the_same_masks(sam):
    options = {"points_per_side": 4, "pred_iou_thresh": 0.1, "stability_score_thresh": 0.1}
    found = {
        mode: SamAutomaticMaskGenerator(sam, **options, output_mode=mode).generate(toy.picture())
        for mode in ("binary_mask", "uncompressed_rle", "coco_rle")
    }
    assert len(found["binary_mask"]) > 0
    for mask, plain, packed in zip(*found.values(), strict=True):
        mask = mask["segmentation"]
        np.testing.assert_array_equal(rle.decode(plain["segmentation"]), mask)
        np.testing.assert_array_equal(coco_mask.decode(packed["segmentation"]), mask)


def test_small_regions_are_removed(sam):
    options = {"points_per_side": 4, "pred_iou_thresh": 0.1, "stability_score_thresh": 0.1}
    image = toy.picture()
    image[:12, :12] = 255  # brighter than the disc: an island of every mask
    plain = SamAutomaticMaskGenerator(sam, **options).generate(image)
    clean = SamAutomaticMaskGenerator(sam, **options, min_mask_region_area=300).generate(image)
    assert any(one["segmentation"][:6, :6].any() and one["segmentation"][24, 40] for one in plain)
    assert clean and not any(
        one["segmentation"][:6, :6].any() and one["segmentation"][24, 40] for one in clean
    )
    for one in clean:
        assert one["area"] == one["segmentation"].sum()


@pytest.mark.parametrize(
    "options",
    [
        {"points_per_side": None},
        {"point_grids": [np.zeros((1, 2))]},
        {"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1},
        {"output_mode": "png"},
    ],
)
def test_arguments_that_contradict_each_other(sam, options):
    with pytest.raises(PromptError):
        SamAutomaticMaskGenerator(sam, **options)


boxes = arrays(
    np.int64,
    st.tuples(st.integers(0, 30), st.just(4)),
    elements=st.integers(0, 12),
).map(lambda b: np.concatenate([np.minimum(b[:, :2], b[:, 2:]), np.maximum(b[:, :2], b[:, 2:])], 1))


@settings(max_examples=200)
@given(boxes, st.floats(0.05, 0.95), st.integers(0, 99))
def test_nms_is_pairwise_suppression(boxes, threshold, seed):
    scores = np.random.default_rng(seed).integers(0, 5, len(boxes)) / 4

    def iou(a, b):
        overlap = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
        return overlap / union if union else 0

    expected = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in expected):
            expected.append(i)
    assert nms(boxes, scores, threshold).tolist() == expected


@settings(max_examples=100)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 3), st.floats(0, 0.5))
def test_crops_are_the_published_ones(height, width, layers, overlap):
    from tools.published import published

    expected = published("utils.amg").generate_crop_boxes((height, width), layers, overlap)
    assert generate_crop_boxes((height, width), layers, overlap) == expected


@settings(max_examples=200)
@given(arrays(bool, st.tuples(st.integers(0, 9), st.integers(0, 9))), st.data())
def test_a_window_is_encoded_as_the_whole_mask(window, data):
    h, w = window.shape
    height, width = data.draw(st.integers(max(h, 1), 12)), data.draw(st.integers(max(w, 1), 12))
    top, left = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w))
    whole = np.zeros((height, width), bool)
    whole[top : top + h, left : left + w] = window
    encoded = rle.encode_uncompressed(window, top, left, (height, width))
    assert encoded == rle.encode_uncompressed(whole)
    theirs = coco_mask.encode(np.asfortranarray(whole.astype(np.uint8)))
    assert rle.compress(encoded)["counts"] == theirs["counts"].decode()
    np.testing.assert_array_equal(rle.decode(encoded), whole)
    assert rle.area(encoded) == whole.sum()
