"""A model whose input is stretched to a square: masks are resized once, and logits may be clamped."""

import numpy as np
import torch

from sam_edge import load
from tests.support import toy

POINT = {"point_coords": [[40, 24]], "point_labels": [1]}


def test_masks_are_resized_straight_from_the_low_resolution(toy_copy):
    toy.rewrite_manifest(toy_copy, lambda data: data["input"].update(resize="stretch"))
    with load(toy_copy) as sam:
        found = sam.predict(sam.encode(toy.picture()), **POINT, return_logits=True)
    low = torch.from_numpy(found.low_res_logits)
    once = torch.nn.functional.interpolate(low, (48, 80), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found.masks, once, atol=1e-4)


def test_low_resolution_logits_are_given_out_clipped_and_masks_are_not(toy_copy):
    with load(toy_copy) as sam:
        free = sam.predict(sam.encode(toy.picture()), **POINT, return_logits=True)
    limit = float(np.abs(free.low_res_logits).max()) / 2
    toy.rewrite_manifest(toy_copy, lambda data: data["mask"].update(low_res_limit=limit))
    with load(toy_copy) as sam:
        clipped = sam.predict(sam.encode(toy.picture()), **POINT, return_logits=True)
    assert (clipped.low_res_logits == free.low_res_logits.clip(-limit, limit)).all()
    assert (clipped.masks == free.masks).all()
