"""The functions of torchvision that `segment_anything` uses, where torchvision is absent or does not load.

Imports nothing of sam-edge, so that environments of other packages can run it as a file.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression: indices of the boxes (N, 4) to keep, highest score first."""
    order = torch.argsort(scores, descending=True, stable=True)
    areas = box_area(boxes)
    kept = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(first)
        corners = torch.cat(
            [boxes[order, :2].maximum(boxes[first, :2]), boxes[order, 2:].minimum(boxes[first, 2:])], 1
        )
        overlap = (corners[:, 2:] - corners[:, :2]).clamp(min=0).prod(1)
        # Two boxes without area give 0 / 0, which is not above any threshold.
        order = order[~(overlap / (areas[order] + areas[first] - overlap) > iou_threshold)]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.long)


def box_area(boxes: Tensor) -> Tensor:
    """(N,) areas of boxes (N, 4) x0, y0, x1, y1."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    assert not idxs.any()
    return nms(boxes, scores, iou_threshold)


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def stand_ins(package: str, contents: dict[str, dict[str, Any]]) -> AbstractContextManager[Any]:
    """A context in which a package is replaced by modules with these contents.

    Args:
        package: its name.
        contents: attributes of each module, by what follows the package in its name: "", ".ops".
    """
    modules = {}
    for key, functions in contents.items():
        module = ModuleType(f"{package}{key}")
        vars(module).update(functions)
        modules[module.__name__] = module
    return patch.dict(sys.modules, modules)


def torchvision_stand_ins() -> AbstractContextManager[Any]:
    """A context in which `import torchvision` gives the functions above."""
    contents: dict[str, dict[str, Any]] = {
        "": {},
        ".ops": {},
        ".ops.boxes": {"batched_nms": _batched_nms, "box_area": box_area},
        ".transforms": {},
        ".transforms.functional": {"resize": _resize, "to_pil_image": Image.fromarray},
    }
    return stand_ins("torchvision", contents)


def load_torchvision() -> str:
    """Import torchvision, with its operators replaced where they do not load; its version and what was done.

    A torchvision that was built for a torch with CUDA does not load beside a torch for CPUs, but its Python
    part works once its operators are declared; `segment_anything` calls non-maximum suppression only.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if find_spec("torchvision") is None:
        raise ModuleNotFoundError("no torchvision", name="torchvision")
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return str(torchvision.__version__)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _DECLARED.append(torch.library.Library("torchvision", "DEF"))  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        _DECLARED[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED[0].impl("nms", nms, "CPU")
    import torchvision

    torchvision.extension._assert_has_ops = lambda: None
    torchvision.ops.boxes._assert_has_ops = lambda: None
    return f"{torchvision.__version__}, with non-maximum suppression in PyTorch"


# Operators are gone when the library that declared them is.
_DECLARED: list[Any] = []


def importable_torchvision() -> AbstractContextManager[Any]:
    """A context in which `segment_anything` can import torchvision: the installed one, or stand-ins."""
    try:
        load_torchvision()
    except ModuleNotFoundError:
        return torchvision_stand_ins()
    return nullcontext()
