"""The reassociated mask decoder is the published function with less arithmetic."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sam_edge.export.architectures.mask_decoder_cpu import reassociate
from sam_edge.export.architectures.model import build_model, decoder_example
from sam_edge.models.catalogue import CATALOGUE
from tools.families_table import SMALLEST
from tools.golden.seeded import apart, seeded_weights


def seeded(name):
    sam = build_model(CATALOGUE[name]).eval().requires_grad_(False)
    sam.load_state_dict(seeded_weights({key: value.shape for key, value in sam.state_dict().items()}))
    return sam


def inputs(model, prompts, points):
    """Random embeddings and points; the last prompt has a mask."""
    torch.manual_seed(5)
    given = decoder_example(model, prompts, model.prompt.num_points or points)
    for name, value in given.items():
        given[name] = torch.randn_like(value)
    given["point_coords"] = torch.rand_like(given["point_coords"]) * model.coordinate_size
    given["point_labels"] = torch.randint(-1, 4, given["point_labels"].shape).float()
    given["has_mask_input"] = torch.zeros(prompts)
    given["has_mask_input"][-1] = 1
    return tuple(given.values())


@pytest.mark.parametrize("name", SMALLEST)
@torch.inference_mode()
def test_masks_and_scores_are_the_same(name):
    sam = seeded(name)
    given = inputs(CATALOGUE[name], 2, 5)
    for ours, published in zip(reassociate(sam).decode(*given)[:2], sam.decode(*given), strict=True):
        assert apart(ours.numpy(), published.numpy()) < 1e-5


@torch.inference_mode()
def test_a_click_takes_half_of_the_arithmetic():
    sam, given = seeded("mobile_sam"), inputs(CATALOGUE["mobile_sam"], 1, 2)

    def operations(one):
        with FlopCounterMode(display=False) as counter:
            one.decode(*given)
        return counter.get_total_flops()

    assert operations(reassociate(sam)) < 0.65 * operations(sam)


def test_the_reference_is_left_as_it_is():
    sam = seeded("sam_edge_tiny")
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    reassociate(sam)
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())
