"""The options of an export, and the command-line options that formats and targets declare."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Option(Generic[T]):
    """A command-line option that some formats or targets understand.

        >>> TWICE = Option("twice", False, "write everything twice", {"action": "store_true"})
        >>> TWICE.of(Options(values={"twice": True}))
        True

    Attributes:
        name: without the dashes; the key in `Options.values`.
        default: its value where it is not given.
        help: for `--help`.
        argument: further arguments of `ArgumentParser.add_argument`.
    """

    name: str
    default: T
    help: str
    argument: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.name}"

    def of(self, options: Options) -> T:
        """Return its value in `options`."""
        value: T = options.values.get(self.name, self.default)
        return value

    def is_given(self, options: Options) -> bool:
        """Whether the user gave it, even with the value that it has by default."""
        return self.name in options.values

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add the argument."""
        parser.add_argument(self.flag, default=argparse.SUPPRESS, help=self.help, **self.argument)

    def read(self, args: argparse.Namespace) -> dict[str, T]:
        """Return its name and value where parsed arguments have it, else nothing."""
        key = self.name.replace("-", "_")
        return {self.name: getattr(args, key)} if hasattr(args, key) else {}


@dataclass(frozen=True)
class Options:
    """The options of an export.

    Attributes:
        formats: names of `sam_edge.export.formats.FORMATS`.
        precisions: names of `sam_edge.axes.PRECISIONS`.
        targets: names of `sam_edge.export.targets.TARGETS`.
        min_iou: replaces the gate on the mean IoU of every variant.
        text_embeddings: decoders take text embeddings as tokens of a prompt.
        values: the options of formats and targets that the user gave, by name.
    """

    formats: tuple[str, ...] = ("onnx",)
    precisions: tuple[str, ...] = ("fp32",)
    targets: tuple[str, ...] = ("any",)
    min_iou: float | None = None
    text_embeddings: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)


def all_options(owners: Iterable[Any]) -> list[Option[Any]]:
    """The options of some formats or targets, each once, in order."""
    return list({option.name: option for owner in owners for option in owner.options}.values())
