"""The exporter's formats, one module each, registered as `FORMAT`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sam_edge import axes

from .base import Format


class FormatRegistry(axes.Registry[Format[Any]]):
    """The exporter's formats; one that is added is made known to the runtime, too."""

    def __init__(self) -> None:
        super().__init__("format", __name__, "FORMAT")
        self._recipes: dict[tuple[str, str], Callable[..., Any]] = {}

    def add(self, entry: Format[Any]) -> Format[Any]:
        """Add a format of another package.

        Raises:
            SamEdgeError: the name is taken.
        """
        super().add(entry)
        if entry.name not in axes.FORMATS:
            axes.FORMATS.add(entry.info)
        return entry

    def add_recipe(self, format: str, precision: str, recipe: Callable[..., Any]) -> None:
        """Let one of sam-edge's own formats be written in another precision.

        Args:
            format: the format's name.
            precision: a precision's name, registered in `sam_edge.axes.PRECISIONS`.
            recipe: as the format's other recipes; see its class.
        """
        self._recipes[format, precision] = recipe
        if self._own is not None:
            self._own[format].recipes[precision] = recipe

    def _built_in(self) -> dict[str, Format[Any]]:
        is_new = self._own is None
        found = super()._built_in()
        if is_new:
            for (format, precision), recipe in self._recipes.items():
                found[format].recipes[precision] = recipe
        return found

    def remove(self, name: str) -> None:
        """Remove what was added under that name, if anything was."""
        super().remove(name)
        axes.FORMATS.remove(name)


FORMATS = FormatRegistry()
