"""Another input size than the model's own: the tables that depend on it are interpolated, all else stays.

Positions of tokens are stretched over the new grid (bicubic, as fine-tuning at another size does), relative
positions of attention over the whole image to the new distances (linear, as the published code does itself).
Windows keep their size, and so do their tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam_edge.errors import SamEdgeError
from sam_edge.imaging.metrics import boundary_iou, iou
from sam_edge.models.catalogue import Model

from ..architectures.model import SamModel
from ..reference.golden import Reference, as_points, make_golden
from .read import Loaded, build_reference, expected_shapes

# Smaller, and masks have a few cells; larger, and nothing that we know of was trained or tried.
SMALLEST, LARGEST = 64, 2048


def check_size(model: Model, size: int) -> None:
    """Raise `SamEdgeError` unless `model` can take inputs of `size` x `size` pixels."""
    step = model.encoder.size_step
    if SMALLEST <= size <= LARGEST and size % step == 0:
        return
    least, most = math.ceil(SMALLEST / step) * step, LARGEST // step * step
    below = min(max(size // step * step, least), most)
    near = f"{below}" if not least <= size <= most else f"{below} or {below + step}"
    raise SamEdgeError(
        f"{model.name} cannot take inputs of {size} pixels; expected a multiple of {step} from {least} to "
        f"{most}: {near}, say (its own is {model.image_size})"
    )


def resize(loaded: Loaded, size: int) -> Loaded:
    """`loaded` for inputs of `size` x `size` pixels; what does not depend on the size is shared.

    Raises:
        SamEdgeError: a size that the model cannot take.
    """
    check_size(loaded.model, size)
    model = replace(loaded.model, image_size=size)
    shapes = expected_shapes(model)
    weights = {
        name: value if value.shape == shapes[name] else _stretched(name, value, shapes[name])
        for name, value in loaded.weights.items()
    }
    return replace(loaded, model=model, weights=weights)


def _stretched(name: str, table: Tensor, shape: tuple[int, ...]) -> Tensor:
    if name.endswith(("rel_pos_h", "rel_pos_w")):
        return F.interpolate(table.T[None], shape[0], mode="linear")[0].T.contiguous()
    # (1, h, w, C) or (1, h * w, C).
    old, new = (math.isqrt(math.prod(one[1:-1])) for one in (table.shape, shape))
    grid = table.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (new, new), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(shape).contiguous()


@torch.inference_mode()
def resized_from(
    own: Loaded, loaded: Loaded, sam: SamModel, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The manifest's `resized_from`: how far the masks of `sam` agree with those at the model's own size.

    Compared are golden prompts of the model at its own size, by the mask that it picks; earlier masks as
    prompts are interpolated to the other size.

    Args:
        own: the checkpoint as it was read.
        loaded: the same at the other size.
        sam: the reference of `loaded`.
        progress: told of each image.

    Raises:
        ParityError: the masks at the model's own size are the same everywhere.
    """
    model, side = loaded.model, own.model.image_size
    golden = make_golden(build_reference(own), own.model, progress)
    reference = Reference(sam, model)
    seen = [reference.encode(image) for image in golden.images]
    low, found, boundary = 4 * model.embedding_side, [], []
    for prompt in golden.prompts:
        mask_input = prompt.mask_input
        if mask_input is not None:
            given = torch.from_numpy(mask_input)[None]
            mask_input = F.interpolate(given, (low, low), mode="bilinear", align_corners=False)[0].numpy()
        coords, labels = as_points(prompt.point_coords, prompt.point_labels, prompt.box)
        _, logits, _ = reference.decode(seen[prompt.image_index], coords, labels, mask_input)
        best = model.first_multimask + int(prompt.scores[model.first_multimask :].argmax())
        mask = logits[best] > prompt.threshold
        found.append(iou(mask, prompt.masks[best]))
        boundary.append(boundary_iou(mask, prompt.masks[best]))
    return {
        "size": [side, side],
        "mean_iou": float(np.mean(found)),
        "min_iou": float(np.min(found)),
        "boundary_iou": float(np.mean(boundary)),
        "num_prompts": len(found),
    }
