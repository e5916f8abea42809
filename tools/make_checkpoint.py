"""Writes a checkpoint with random weights in its published layout.

python -m tools.make_checkpoint vit_b FILE
"""

import json
from functools import partial

import numpy as np
import torch

from sam_edge.export.checkpoints.read import expected_shapes
from sam_edge.models.catalogue import CATALOGUE
from tools.golden import make_edge_sam as make_golden_edge_sam
from tools.golden import make_sam2 as make_golden_sam2
from tools.golden import seeded
from tools.shared.commands import tool_parser

GOLDEN = make_golden_sam2.GOLDEN
# The families whose signals would vanish or overflow with plain `seeded_weights`.
WEIGHTS = {
    "edge_sam": partial(seeded.seeded_weights, gain=make_golden_edge_sam.GAIN),
    "edgetam": make_golden_sam2.seeded_weights,
    "sam2": make_golden_sam2.seeded_weights,
    "sam2.1": make_golden_sam2.seeded_weights,
}
# The key of the state dict in files that wrap it.
WRAPPERS = {
    "edgetam": "model",
    "efficient_sam": "model",
    "efficientvit_sam": "state_dict",
    "sam2": "model",
    "sam2.1": "model",
}


def published_shapes(name):
    """Names and shapes of the tensors in the published file of `name`."""
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
            # The file contains the classifier that the encoder was trained with.
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
    """A random state dict under the published names, with random BatchNorm statistics and position tables."""
    return WEIGHTS.get(CATALOGUE[name].family, seeded.seeded_weights)(published_shapes(name))


def write_checkpoint(name, path):
    """Write a random checkpoint of `name` to `path`."""
    wrapper, weights = WRAPPERS.get(CATALOGUE[name].family), random_weights(name)
    torch.save({wrapper: weights} if wrapper else weights, path)


if __name__ == "__main__":
    parser = tool_parser("make_checkpoint", __doc__)
    parser.add_argument("name", choices=CATALOGUE, metavar="NAME", help="a name from `sam-edge models`")
    parser.add_argument("file")
    args = parser.parse_args()
    write_checkpoint(args.name, args.file)
