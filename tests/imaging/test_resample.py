"""Resizing is Pillow's to the bit, one axis after the other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sam_edge.imaging.resample import resize_bilinear

side = st.integers(1, 300)


@settings(max_examples=200)
@given(side, side, side, side, st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_columns_then_rows_are_pillows(h, w, new_h, new_w, seed, threads):
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    # Two calls, because recent Pillow releases choose the order of the passes themselves.
    columns = Image.fromarray(image).resize((new_w, h), Image.Resampling.BILINEAR)
    pillows = columns.resize((new_w, new_h), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize_bilinear(image, (new_h, new_w), threads), np.asarray(pillows))
