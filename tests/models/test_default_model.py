"""The embedded model on held-out scenes: it finds things, and its parameters are as listed."""

import pytest

from sam_edge.export.architectures.model import SamModel
from sam_edge.models.catalogue import CATALOGUE, HERE
from tools.training.evaluate import evaluate


@pytest.mark.parametrize("name", ["sam_edge_tiny", "vit_b"])
def test_the_parameters_are_as_listed(name):
    model = CATALOGUE[name]
    assert sum(p.numel() for p in SamModel(model).parameters()) == model.parameters


@pytest.mark.slow
def test_the_recorded_figures_hold():
    # models/README.md: 0.804 and 0.846.
    result = evaluate(HERE / CATALOGUE["sam_edge_tiny"].checkpoint.file, None, 500)
    assert result["click_iou"] >= 0.79 and result["box_iou"] >= 0.83
