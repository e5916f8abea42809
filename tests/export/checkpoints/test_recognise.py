"""Which model a checkpoint is, for every family: as trained, with another depth or width, and of none."""

import re

import pytest
import torch

from sam_edge.errors import CheckpointError
from sam_edge.export.checkpoints.read import load_checkpoint
from sam_edge.models.catalogue import CATALOGUE
from tools.families_table import SMALLEST
from tools.make_checkpoint import published_shapes

NAMES = ("vit_b", *SMALLEST)


def weights_of(shapes):
    """Zeros that take no room in a file."""
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


def read(folder, content):
    path = folder / "last.pth"
    torch.save(content, path)
    return load_checkpoint(path)


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
@pytest.mark.parametrize("name", NAMES)
def test_a_training_checkpoint_with_its_optimizer(tmp_path, name, wrapper):
    weights = weights_of(published_shapes(name))
    moments = {index: {"step": 7, "exp_avg": value} for index, value in enumerate(weights.values())}
    state = {"state": moments, "param_groups": [{"lr": 1e-4, "params": list(moments)}]}
    loaded = read(tmp_path, {wrapper: weights, "optimizer": state, "epoch": 3})
    assert (loaded.model.name, loaded.layout) == (name, "published")


@pytest.mark.parametrize("name", NAMES)
def test_a_training_checkpoint_of_several_gpus(tmp_path, name):
    weights = weights_of(published_shapes(name))
    loaded = read(tmp_path, {"model": {f"module.{key}": value for key, value in weights.items()}})
    assert (loaded.model.name, loaded.layout) == (name, "published")


@pytest.mark.parametrize("name", NAMES)
def test_another_width_names_the_family(tmp_path, name):
    shapes = published_shapes(name)
    wider = {
        key: tuple(side + 8 if side > 30 else side for side in shape)
        if key.startswith("image_encoder.")
        else shape
        for key, shape in shapes.items()
    }
    with pytest.raises(CheckpointError, match="the nearest is") as caught:
        read(tmp_path, weights_of(wider))
    nearest = re.search(r"the nearest is (\S+)", str(caught.value)).group(1)
    assert CATALOGUE[nearest].family == CATALOGUE[name].family
    assert "misshapen, first image_encoder." in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_another_depth_names_the_family(tmp_path, name):
    shapes = published_shapes(name)
    deepest = max(
        (key for key in shapes if key.startswith("image_encoder.") and re.search(r"\.\d+\.", key)),
        key=lambda key: int(re.search(r"\.(\d+)\.", key).group(1)),
    )
    block = re.match(r".*?\.\d+\.", deepest).group()
    with pytest.raises(CheckpointError, match="the nearest is") as caught:
        read(tmp_path, weights_of({k: shape for k, shape in shapes.items() if not k.startswith(block)}))
    nearest = re.search(r"the nearest is (\S+)", str(caught.value)).group(1)
    assert CATALOGUE[nearest].family == CATALOGUE[name].family
    assert "missing, first image_encoder." in str(caught.value)


def test_no_family_at_all(tmp_path):
    with pytest.raises(CheckpointError, match=r"matches no model of the catalogue.*unexpected, first conv1"):
        read(tmp_path, {"conv1.weight": torch.zeros(3, 3), "fc.weight": torch.zeros(2, 2)})
