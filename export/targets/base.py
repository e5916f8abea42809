"""The exporter's side of a target: which variants are made for it, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sam_edge import axes
from sam_edge.errors import SamEdgeError
from sam_edge.models.catalogue import Model

from ..context.job import Job, Written
from ..context.options import Option, Options


class Target:
    """A kind of machine. Subclasses set `info`; those with variants of their own also define `write`.

    Attributes:
        info: the runtime's entry for this target.
        formats: the formats of its own variants.
        precisions: the precisions of its own variants, from exact to small.
        others: why it has no other precisions; shown in error messages.
        options: the command-line options that it understands.
        supports_clip: whether `--clip` may be given with it.
        supports_contracts: whether `--compat` may be given with it alone.
        supports_text_embeddings: whether `--text-embeddings` may be given with it.
        full_range: for instruction sets, whether INT8 weights use all 8 bits (else 7, as `reduce_range`).
    """

    info: axes.Target
    formats: tuple[str, ...] = ("onnx",)
    precisions: tuple[str, ...] = ()
    others: str = ""
    options: tuple[Option[Any], ...] = ()
    supports_clip = True
    supports_contracts = True
    supports_text_embeddings = True
    full_range = False

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return self.info.name

    @property
    def rank(self) -> int:
        """Its position when targets are listed."""
        return self.info.rank

    def check(self, options: Options) -> None:
        """Raise `SamEdgeError` for options that this target cannot have."""
        if options.text_embeddings and not self.supports_text_embeddings:
            raise SamEdgeError(
                f"--text-embeddings is not supported by --target {self.name}; leave one of the two out"
            )

    def warnings(self, options: Options) -> Iterator[str]:
        """Yield what the user should know about this machine before an export for this target starts."""
        return iter(())

    def write(self, job: Job) -> Written:
        """Write one of its own variants; as `Format.write`."""
        raise NotImplementedError

    def measures_on(self, written: Written) -> str:
        """The device that the parity of a written variant is measured on, as `load` takes it."""
        return "auto"

    def facts(self, model: Model) -> dict[str, Any]:
        """Return the manifest fields that its own variants get; `model` is the catalogue's entry."""
        return {self.info.axis: self.info.name} if self.info.has_own_variants else {}
