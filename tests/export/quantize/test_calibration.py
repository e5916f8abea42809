"""Calibration images: a folder's, or the packaged ones."""

import numpy as np
import pytest
from PIL import Image

from sam_edge.errors import CalibrationError
from sam_edge.export.quantize.calibration import MAX_IMAGES, packaged_calibration, read_calibration
from sam_edge.imaging.preprocess import InputRules

RULES = InputRules((64, 64), "longest_side", True, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 0.0)


def picture(path, seed=0, size=(40, 60)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def test_a_folder_is_read_in_order_with_its_folders(tmp_path):
    (tmp_path / "more").mkdir()
    picture(tmp_path / "b.png", 1)
    picture(tmp_path / "more" / "a.jpg", 2)
    (tmp_path / "notes.txt").write_text("not a picture")
    found = read_calibration(tmp_path, RULES)
    assert [image.shape for image in found.images] == [(1, 3, 64, 64)] * 2 and found.skipped == 0
    assert found.sha256 == read_calibration(tmp_path, RULES).sha256
    picture(tmp_path / "b.png", 3)
    assert found.sha256 != read_calibration(tmp_path, RULES).sha256


def test_unreadable_pictures_are_skipped_and_counted(tmp_path):
    picture(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_text("this is text")
    (tmp_path / "empty.png").touch()
    found = read_calibration(tmp_path, RULES)
    assert len(found.images) == 1 and found.skipped == 2


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (None, "is not a folder"),
        ([], "holds no images"),
        (["a.jpg", "b.png"], "none of its 2 image files"),
    ],
)
def test_a_folder_without_a_picture_is_refused(tmp_path, files, says):
    folder = tmp_path / "calib"
    if files is not None:
        folder.mkdir()
        for name in files:
            (folder / name).write_text("text")
    with pytest.raises(CalibrationError, match=says):
        read_calibration(folder, RULES)


def test_no_more_pictures_are_read_than_ranges_need(tmp_path):
    for i in range(MAX_IMAGES + 3):
        picture(tmp_path / f"{i:03}.png", i, (8, 8))
    assert len(read_calibration(tmp_path, RULES).images) == MAX_IMAGES


def test_the_packaged_photographs_need_no_folder():
    found = packaged_calibration(RULES)
    assert len(found.images) == 15 and all(np.isfinite(image).all() for image in found.images)
