"""The runtime's entries for formats, precisions and targets: names, order, gates, requirements."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..errors import BundleError


@dataclass(frozen=True)
class Format:
    """A file format of graphs. `sam_edge.export.formats` has the code that writes it.

    Attributes:
        name: as in the manifest and on the command line.
        rank: its position when entries are listed, lowest first.
        title: its name in messages and help.
        colour: of its rows in plots, as matplotlib takes it; None to have one assigned.
    """

    name: str
    rank: int
    title: str
    colour: str | None = None


@dataclass(frozen=True)
class Gate:
    """The mean and minimum IoU with the reference's masks that a variant must reach."""

    mean: float
    min: float


@dataclass(frozen=True)
class Precision:
    """How numbers are stored and computed. The exporter's formats declare which precisions they can write.

    Attributes:
        name: as in the manifest and on the command line.
        rank: from exact to small: "auto" takes the first that a bundle has.
        gate: what masks must reach.
        clip_gate: the smallest cosine similarity that a CLIP's features must have with the reference's.
        stays_exact: a sentence on what is kept in a higher precision.
        calibrated: whether it uses calibration images and a search for operators to keep in floating point.
        marker: matplotlib's marker in plots.
    """

    name: str
    rank: int
    gate: Gate
    clip_gate: float
    stays_exact: str
    calibrated: bool = False
    marker: str = "P"


@dataclass(frozen=True)
class Requirement:
    """A feature that CPUs of one architecture must have. It does not apply to other architectures.

    Written "x86: avx512_vnni or avx_vnni", with the names that Linux has for features.

    Attributes:
        architecture: "x86" or "arm".
        any_of: features of which at least one must be present.
    """

    architecture: str
    any_of: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.architecture}: {' or '.join(self.any_of)}"

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read what `str` wrote.

        Raises:
            BundleError: it is something else.
        """
        match = re.fullmatch(r"(\w+): ([\w.]+(?: or [\w.]+)*)", text)
        if match is None:
            raise BundleError(
                f"the requirement {text!r:.80} cannot be read; expected one like 'x86: avx512_vnni or "
                "avx_vnni'; export the bundle again, or upgrade sam-edge"
            )
        return cls(match[1], tuple(match[2].split(" or ")))


Axis = Literal["instruction_set", "accelerator", "browser"]
AXES: tuple[Axis, ...] = ("instruction_set", "accelerator", "browser")


@dataclass(frozen=True)
class Target:
    """A kind of machine that variants are made for. `sam_edge.export.targets` has the code that makes them.

    Attributes:
        name: as in the manifest, under the name of its axis, and on the command line.
        rank: its position when entries are listed, lowest first.
        axis: "instruction_set", which shapes the ordinary variants; "accelerator" or "browser", which have
            variants of their own.
        title: its name in messages and help.
        requires: CPU features without which the masks get worse; recorded in the variants made for it.
        gates: by precision, where the gate differs from the precision's own.
        devices: prefixes of the names that backends list its devices under.
        runs_whole: whether its devices must run these graphs without falling back to the CPU.
    """

    name: str
    rank: int
    axis: Axis
    title: str
    requires: tuple[Requirement, ...] = ()
    gates: Mapping[str, Gate] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    runs_whole: bool = False

    @property
    def has_own_variants(self) -> bool:
        """Whether variants are made for it alone, beside the ordinary ones."""
        return self.axis != "instruction_set"
