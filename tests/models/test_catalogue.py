"""The catalogue's numbers are the models', and its table is models/README.md's."""

import pytest
import torch

from sam_edge.cli import main
from sam_edge.export.architectures.model import build_model
from sam_edge.export.macs import encoder_gmacs
from sam_edge.models.catalogue import CATALOGUE, ENCODER_GMACS, HERE
from tools.models_table import markdown

# Building the large ones takes seconds even without their weights.
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if model.parameters > 100e6 else [])
    for name, model in CATALOGUE.items()
]


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name):
    with torch.device("meta"):
        sam = build_model(CATALOGUE[name])
    assert sum(parameter.numel() for parameter in sam.parameters()) == CATALOGUE[name].parameters


@pytest.mark.parametrize("name", NAMES)
def test_encoder_gmacs(name):
    assert encoder_gmacs(CATALOGUE[name]) == ENCODER_GMACS[name]


def test_the_readme_has_the_table():
    # `python -m tools.models_table` writes it.
    assert ENCODER_GMACS.keys() == CATALOGUE.keys()
    text = (HERE / "README.md").read_text("utf-8")
    assert f"\n\n{markdown()}\n" in text and text.count("| name |") == 1


def test_models_lists_every_checkpoint(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    assert all(f" {ENCODER_GMACS[line.split()[0]]} GMACs" in line for line in lines)
