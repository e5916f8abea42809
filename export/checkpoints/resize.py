"""Change a model's input size: interpolate the position tables that depend on it, keep everything else.

Position embeddings are interpolated to the new grid (bicubic, as fine-tuning at another size does), relative
positions of global attention to the new distances (linear, as the published code does). Windows keep their
size, and so do their tables.
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

# Below, masks have only a few cells; above, no published model was trained.
SMALLEST, LARGEST = 64, 2048


def check_size(model: Model, size: int) -> None:
    """Raise `SamEdgeError` unless `model` supports inputs of `size` x `size` pixels."""
    step = model.encoder.size_step
    if SMALLEST <= size <= LARGEST and size % step == 0:
        return
    least, most = math.ceil(SMALLEST / step) * step, LARGEST // step * step
    below = min(max(size // step * step, least), most)
    near = f"{below}" if not least <= size <= most else f"{below} or {below + step}"
    raise SamEdgeError(
        f"{model.name} cannot take inputs of {size} pixels; expected a multiple of {step} from {least} to "
        f"{most}, for example {near} (its own size is {model.image_size})"
    )


def resize(loaded: Loaded, size: int) -> Loaded:
    """Change a checkpoint's input size; tensors that do not depend on it are shared.

        >>> loaded = resize(load_checkpoint(path), 512)

    Args:
        loaded: the checkpoint.
        size: side of the new input in pixels.

    Raises:
        SamEdgeError: the model does not support the size.
    """
    check_size(loaded.model, size)
    model = replace(loaded.model, image_size=size)
    shapes = expected_shapes(model)
    weights = {
        name: value if value.shape == shapes[name] else _interpolate(name, value, shapes[name])
        for name, value in loaded.weights.items()
    }
    return replace(loaded, model=model, weights=weights)


def _interpolate(name: str, table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Interpolate a table of relative positions (n, width) or of position embeddings to `shape`."""
    if name.endswith(("rel_pos_h", "rel_pos_w")):
        return F.interpolate(table.T[None], shape[0], mode="linear")[0].T.contiguous()
    # Position embeddings are (1, h, w, C) or (1, h * w, C).
    old, new = (math.isqrt(math.prod(one[1:-1])) for one in (table.shape, shape))
    grid = table.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (new, new), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(shape).contiguous()


@torch.inference_mode()
def resized_from(
    own: Loaded, loaded: Loaded, sam: SamModel, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure how well the masks at a new size match those at the model's own size.

    For each golden prompt at its own size, the mask that the model scores best is compared. Mask prompts are
    interpolated to the new size.

    Args:
        own: the checkpoint as it was read.
        loaded: the same at the new size.
        sam: the reference model of `loaded`.
        progress: called with each step.

    Returns:
        The manifest's `resized_from`.

    Raises:
        ParityError: the model's masks at its own size are constant.
    """
    model, side = loaded.model, own.model.image_size
    golden = make_golden(build_reference(own), own.model, progress)
    reference = Reference(sam, model)
    encoded = [reference.encode(image) for image in golden.images]
    low, ious, boundary_ious = 4 * model.embedding_side, [], []
    for prompt in golden.prompts:
        mask_input = prompt.mask_input
        if mask_input is not None:
            logits = torch.from_numpy(mask_input)[None]
            mask_input = F.interpolate(logits, (low, low), mode="bilinear", align_corners=False)[0].numpy()
        coords, labels = as_points(prompt.point_coords, prompt.point_labels, prompt.box)
        _, masks, _ = reference.decode(encoded[prompt.image_index], coords, labels, mask_input)
        best = model.first_multimask + int(prompt.scores[model.first_multimask :].argmax())
        mask = masks[best] > prompt.threshold
        ious.append(iou(mask, prompt.masks[best]))
        boundary_ious.append(boundary_iou(mask, prompt.masks[best]))
    return {
        "size": [side, side],
        "mean_iou": float(np.mean(ious)),
        "min_iou": float(np.min(ious)),
        "boundary_iou": float(np.mean(boundary_ious)),
        "num_prompts": len(ious),
    }
