"""A checkpoint with random weights can be exported and checked too: its masks may be empty or full."""

import torch

from sam_edge.cli import main
from sam_edge.export.architectures.model import SamModel
from sam_edge.export.reference.golden import at_median, make_golden
from sam_edge.models.catalogue import CATALOGUE
from tools.make_checkpoint import random_weights

TINY = CATALOGUE["sam_edge_tiny"]


def biased(shift):
    """Random weights whose masks are all empty (shift below zero) or all full."""
    sam = SamModel(TINY).eval().requires_grad_(False)
    sam.load_state_dict(random_weights("sam_edge_tiny"))
    decoder = sam.mask_decoder
    decode = decoder.forward
    decoder.forward = lambda *inputs: (decode(*inputs)[0] + shift, decode(*inputs)[1])
    return sam


def test_prompts_are_chosen_where_there_is_something_to_compare():
    for shift in (-1e4, 1e4):
        golden = make_golden(biased(shift), TINY)
        assert at_median(golden, TINY) and golden.prompts
        for prompt in golden.prompts:
            best = 1 + int(prompt.scores[1:].argmax())
            assert 0.3 < prompt.masks[best].mean() < 0.7


def test_random_weights_export_and_verify(tmp_path, capsys):
    torch.save({"model": random_weights("sam_edge_tiny")}, tmp_path / "random.pth")
    out = tmp_path / "bundle"
    assert main(["export", "--checkpoint", str(tmp_path / "random.pth"), "--out", str(out)]) == 0
    assert main(["verify", str(out)]) == 0
    assert "sam-edge verify" in capsys.readouterr().out
