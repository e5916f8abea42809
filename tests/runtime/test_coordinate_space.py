"""A model whose prompt coordinates are not pixels of its input: EfficientViT-SAM."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sam_edge import load
from tests.support import toy


@pytest.fixture
def wide(toy_copy):
    """The toy, its coordinates in a square of 144 around an input of 64."""
    toy.rewrite_manifest(toy_copy, lambda data: data["prompt"].update(coordinate_size=[144, 144]))
    with load(toy_copy) as sam:
        yield sam


def test_prompts_and_masks_go_through_the_coordinate_square(wide, monkeypatch):
    embedding = wide.encode(toy.picture(41, 80))
    # 144 / 80 * 41 = 73.8, rounded in the square and not in the input, where 64 / 80 * 41 = 32.8.
    assert embedding.resized_size == (33, 64)
    given = {}
    run = wide._graphs.decoder.run
    monkeypatch.setattr(wide._graphs.decoder, "run", lambda inputs: given.update(inputs) or run(inputs))
    found = wide.predict(embedding, [[40, 20]], return_logits=True)
    np.testing.assert_allclose(given["point_coords"][0, 0], [40 * 144 / 80, 20 * 74 / 41], rtol=1e-6)
    full = F.interpolate(torch.from_numpy(found.low_res_logits), (144, 144), mode="bilinear")[..., :74, :]
    full = F.interpolate(full, (41, 80), mode="bilinear")
    np.testing.assert_allclose(found.masks, full, atol=2e-4)
