"""A checkpoint with random weights in the published layout: `python -m tests.make_checkpoint vit_b FILE`."""

import sys

import torch

from sam_edge.export.reference.model import SamModel
from sam_edge.models.catalogue import CATALOGUE


def random_weights(name, seed=0):
    """Weights that keep signals alive, relative-position tables and norms included."""
    torch.manual_seed(seed)
    sam = SamModel(CATALOGUE[name])
    for key, value in sam.named_parameters():
        noise = torch.randn_like(value)
        if "norm" in key and key.endswith("weight"):
            value.data = 1 + 0.2 * noise
        elif value.dim() >= 2 and "embed" not in key and "rel_pos" not in key:
            value.data = noise / value[0].numel() ** 0.5
        else:
            value.data = 0.3 * noise
    return sam.state_dict()


if __name__ == "__main__":
    torch.save(random_weights(sys.argv[1]), sys.argv[2])
