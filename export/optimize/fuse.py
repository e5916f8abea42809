"""Fuse what inference can fuse, exactly: BatchNorm into convolutions, parallel branches into one.

A module that can become a simpler one says so by a method `fuse()`, which returns the simpler module.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from ..architectures.model import SamModel

M = TypeVar("M", bound=nn.Module)


def copy_of(module: M) -> M:
    """A copy that shares its tensors with `module`, for changes that replace tensors and write into none."""
    tensors = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def fuse(sam: SamModel) -> SamModel:
    """A copy of `sam`, in evaluation mode, with every module that has `fuse()` fused."""
    fused = copy_of(sam)
    _fuse_children(fused)
    return fused.requires_grad_(False).eval()


def _fuse_children(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        _fuse_children(child)
        simpler = getattr(child, "fuse", None)
        if simpler is not None:
            setattr(module, name, simpler())
