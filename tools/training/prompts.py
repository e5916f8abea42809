"""Simulates the prompts that `sam_edge_tiny` is trained with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def random_points(allowed: Tensor, generator: torch.Generator) -> Tensor:
    """A uniformly random allowed pixel of each mask: (N, H, W) bool -> (N, 2) x, y."""
    n, _, width = allowed.shape
    scores = torch.rand(allowed.shape, generator=generator) * allowed
    index = scores.reshape(n, -1).argmax(1)
    return torch.stack([index % width, index // width], dim=1).float()


def first_prompts(masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A click or a loose box for each of (N, S, S) masks: coords (N, 2, 2) and labels (N, 2)."""
    n, side, _ = masks.shape
    solid = masks.bool()
    # Half the clicks stay away from the edge, as people's do.
    inner = -F.max_pool2d(-masks.float()[:, None], 9, 1, 4)[:, 0] > 0
    use_inner = (torch.rand(n, generator=generator) < 0.5) & inner.flatten(1).any(1)
    click = random_points(torch.where(use_inner[:, None, None], inner, solid), generator)
    columns, rows = solid.any(1).float(), solid.any(2).float()
    x0, y0 = columns.argmax(1).float(), rows.argmax(1).float()
    x1 = side - columns.flip(1).argmax(1).float()
    y1 = side - rows.flip(1).argmax(1).float()
    box = torch.stack([x0, y0, x1, y1], dim=1)
    sides = torch.stack([x1 - x0, y1 - y0], dim=1).repeat(1, 2)
    # From exact boxes to the paper's loosest, 10% of the side.
    looseness = 0.1 * torch.rand(n, 1, generator=generator)
    noise = torch.randn(n, 4, generator=generator) * torch.clamp(looseness * sides, max=20)
    box = (box + noise).clamp(0, side).reshape(n, 2, 2)
    point = torch.stack([click, torch.zeros_like(click)], dim=1)
    is_box = torch.rand(n, generator=generator) < 0.6
    coords = torch.where(is_box[:, None, None], box, point)
    labels = torch.where(is_box[:, None], torch.tensor([2.0, 3.0]), torch.tensor([1.0, -1.0]))
    return coords, labels


def correction(predicted: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A click where the mask is wrong: foreground on what it missed, background on what it added."""
    wrong = predicted != masks.bool()
    none = ~wrong.flatten(1).any(1)
    wrong = torch.where(none[:, None, None], masks.bool(), wrong)
    point = random_points(wrong, generator)
    x, y = point.long().unbind(1)
    label = masks[torch.arange(len(masks)), y, x].float()
    return point[:, None], label[:, None]
