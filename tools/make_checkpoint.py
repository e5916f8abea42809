"""A checkpoint with random weights in the published layout: `python -m tools.make_checkpoint vit_b FILE`."""

import json
import sys
from functools import partial

import numpy as np
import torch

from sam_edge.export.checkpoints.read import expected_shapes
from sam_edge.models.catalogue import CATALOGUE
from tools.golden import make_edge_sam as make_golden_edge_sam
from tools.golden import make_sam2 as make_golden_sam2
from tools.golden import seeded

GOLDEN = make_golden_sam2.GOLDEN
# What keeps a family's signals alive, where it is not `seeded_weights` as it is.
WEIGHTS = {
    "edge_sam": partial(seeded.seeded_weights, gain=make_golden_edge_sam.GAIN),
    "edgetam": make_golden_sam2.seeded_weights,
    "sam2": make_golden_sam2.seeded_weights,
    "sam2.1": make_golden_sam2.seeded_weights,
}
# The name of the state dict in files that hold it so.
WRAPPERS = {
    "edgetam": "model",
    "efficient_sam": "model",
    "efficientvit_sam": "state_dict",
    "sam2": "model",
    "sam2.1": "model",
}


def published_shapes(name):
    """Names and shapes of `name`'s published file: from the published code where they are not ours."""
    match CATALOGUE[name].family:
        case "sam2" | "sam2.1":
            return make_golden_sam2.unpacked(np.load(GOLDEN / "sam2.npz"))[name]
        case "edgetam":
            return make_golden_sam2.unpacked(np.load(GOLDEN / "edgetam.npz"))[name]
        case "sam_hq":
            stored = np.load(GOLDEN / "sam_hq.npz")[f"{name.removeprefix('sam_hq_')}/shapes"].tobytes()
        case "efficient_sam":
            stored = str(
                np.load(GOLDEN / "efficient_sam.npz")[f"{name.removeprefix('efficient_sam_')}/shapes"]
            )
        case "mobile_sam":
            # The classifier that the encoder was trained with is in the file.
            head = {
                "norm_head.weight": (320,),
                "norm_head.bias": (320,),
                "head.weight": (1000, 320),
                "head.bias": (1000,),
            }
            classifier = {f"image_encoder.{key}": shape for key, shape in head.items()}
            return {**expected_shapes(CATALOGUE[name]), **classifier}
        case _:
            return expected_shapes(CATALOGUE[name])
    return {key: tuple(shape) for key, shape in json.loads(stored).items()}


def random_weights(name):
    """The state dict, under the published names; BatchNorm statistics and position tables are random too."""
    return WEIGHTS.get(CATALOGUE[name].family, seeded.seeded_weights)(published_shapes(name))


def write_checkpoint(name, path):
    """Write the file of `name` to `path`."""
    wrapper, weights = WRAPPERS.get(CATALOGUE[name].family), random_weights(name)
    torch.save({wrapper: weights} if wrapper else weights, path)


if __name__ == "__main__":
    write_checkpoint(*sys.argv[1:])
