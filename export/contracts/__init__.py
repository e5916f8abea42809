"""Decoder interfaces of other packages (`--compat`), one module each, registered as `CONTRACT`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sam_edge.axes import Registry
from sam_edge.models.catalogue import Model


@dataclass(frozen=True)
class Contract:
    """The inputs and outputs of a decoder as another package publishes them.

    Attributes:
        name: as `--compat` takes it.
        rank: its place among the others.
        check: raises `SamEdgeError` for a model that cannot have it.
        write: appends what is missing to a decoder in ONNX: source, target, model.
    """

    name: str
    rank: int
    check: Callable[[Model], None]
    write: Callable[[Path, Path, Model], None]


CONTRACTS: Registry[Contract] = Registry("contract", __name__, "CONTRACT")
