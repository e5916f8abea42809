"""What a target is to the exporter: which variants are made for it, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sam_edge import axes
from sam_edge.errors import SamEdgeError
from sam_edge.models.catalogue import Model

from ..context.job import Job, Written
from ..context.options import Option, Options


class Target:
    """A kind of machine. Subclasses set `info`; those with variants of their own define `write` and the rest.

    Attributes:
        info: what the runtime knows of it.
        formats: of its own variants.
        precisions: of its own variants, from exact to small.
        others: why there are no other precisions, for messages.
        options: command-line options that it understands.
        supports_clip, supports_contracts, supports_text_embeddings: whether its variants may have these.
        full_range: whether weights that are multiplied in integers use all 8 bits; of instruction sets only.
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
        """As on the command line."""
        return self.info.name

    @property
    def rank(self) -> int:
        """Its place among the others."""
        return self.info.rank

    def check(self, options: Options) -> None:
        """Raise `SamEdgeError` for options that this target cannot have."""
        if options.text_embeddings and not self.supports_text_embeddings:
            raise SamEdgeError(
                f"--text-embeddings is not supported by --target {self.name}; leave one of the two out"
            )

    def warnings(self, options: Options) -> Iterator[str]:
        """What the user should know of this machine before an export for this target starts."""
        return iter(())

    def write(self, job: Job) -> Written:
        """Write one of its own variants, as `Format.write`."""
        raise NotImplementedError

    def measures_on(self, written: Written) -> str:
        """The device that the parity of a written variant is measured on, as `load` takes it."""
        return "auto"

    def facts(self, model: Model) -> dict[str, Any]:
        """What the manifest says of its own variants; `model` is the catalogue's entry."""
        return {self.info.axis: self.info.name} if self.info.has_own_variants else {}
