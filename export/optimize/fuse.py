"""Fuse modules exactly for inference: BatchNorm into convolutions, parallel branches into one.

A module that can become a simpler one has a method `fuse()` that returns the simpler module.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def copy_sharing_tensors(module: M) -> M:
    """Copy a module but not its parameters and buffers: for changes that replace tensors and never write."""
    tensors = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def fuse(module: M) -> M:
    """Copy `module` in evaluation mode, with every submodule that has `fuse()` replaced by its result."""
    fused = copy_sharing_tensors(module)
    _fuse_children(fused)
    return fused.requires_grad_(False).eval()


def _fuse_children(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        _fuse_children(child)
        simpler = getattr(child, "fuse", None)
        if simpler is not None:
            setattr(module, name, simpler())
