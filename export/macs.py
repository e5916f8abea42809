"""Count the multiply-accumulates of image encoders: `python -m sam_edge.export.macs [NAME ...]`.

Prints the catalogue's `ENCODER_GMACS`: the convolutions and matmuls of the fused encoder for one image at the
model's input size. They are counted on PyTorch's meta device, which computes nothing.
"""

from __future__ import annotations

import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

from sam_edge.models.catalogue import CATALOGUE, Model

from .architectures.model import build_model
from .optimize.fuse import fuse


def encoder_gmacs(model: Model) -> float:
    """Count billions of multiply-accumulates of an encoder's convolutions and matmuls, to four digits."""
    with torch.device("meta"):
        sam = fuse(build_model(model).eval())
        image = torch.zeros(1, 3, model.image_size, model.image_size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            sam.encode(image)
    return float(f"{counter.get_total_flops() / 2e9:.4g}")


if __name__ == "__main__":
    for name in sys.argv[1:] or CATALOGUE:
        print(f'    "{name}": {encoder_gmacs(CATALOGUE[name])},', flush=True)
