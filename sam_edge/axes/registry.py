"""Registries of named entries, one module each, which other packages can extend."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from typing import Generic, Protocol, TypeVar

from ..errors import SamEdgeError

# Entry points of this group name modules of other packages that add entries when they are imported.
EXTENSIONS = "sam_edge.extensions"


_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)


class Entry(Protocol):
    """An entry of a registry."""

    @property
    def name(self) -> str:
        """Its name in the manifest and on the command line."""
        ...

    @property
    def rank(self) -> int:
        """Its position when entries are listed, lowest first."""
        ...


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """Named entries, ordered by rank.

    Every module of a package that has the attribute asked for adds that entry, when the registry is first
    used. `add` adds one by a call; a package that does so on import is found by an entry point:

        [project.entry-points."sam_edge.extensions"]
        mine = "my_package.my_format"
    """

    def __init__(self, what: str, package: str, attribute: str) -> None:
        """Define a registry; nothing is imported yet.

        Args:
            what: what an entry is called in messages, "format" say.
            package: the package whose modules hold the built-in entries.
            attribute: the name of the entry in each of these modules.
        """
        self.what = what
        self._package, self._attribute = package, attribute
        self._own: dict[str, E] | None = None
        self._added: dict[str, E] = {}

    def _modules(self) -> list[str]:
        folder = importlib.import_module(self._package).__path__
        return sorted(module.name for module in pkgutil.iter_modules(folder))

    def _built_in(self) -> dict[str, E]:
        if self._own is None:
            modules = [importlib.import_module(f"{self._package}.{name}") for name in self._modules()]
            entries: list[E] = [getattr(m, self._attribute) for m in modules if hasattr(m, self._attribute)]
            self._own = {entry.name: entry for entry in entries}
        return self._own

    def _entries(self) -> list[E]:
        return sorted([*self._built_in().values(), *self._added.values()], key=lambda one: one.rank)

    def add(self, entry: E) -> E:
        """Add an entry of another package; imports no built-in one.

        Raises:
            SamEdgeError: the name is taken or is not one that fits a file's name and the command line, or the
                rank is no integer.
        """
        if not (isinstance(entry.name, str) and _NAME.fullmatch(entry.name)):
            raise SamEdgeError(
                f"the {self.what} {entry.name!r:.60} cannot be registered; expected a name of lower-case "
                "letters, digits, hyphens and underscores that begins with a letter"
            )
        if not isinstance(entry.rank, int):
            raise SamEdgeError(
                f"the {self.what} {entry.name!r} has the rank {entry.rank!r:.40}; expected an integer"
            )
        if entry.name.replace("-", "_") in self._modules() or entry.name in self._added:
            raise SamEdgeError(f"the {self.what} {entry.name!r} is registered already; choose another name")
        self._added[entry.name] = entry
        return entry

    def remove(self, name: str) -> None:
        """Remove what was added under that name, if anything was."""
        self._added.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """The names of all entries, in order."""
        return tuple(entry.name for entry in self)

    def built_in_names(self) -> tuple[str, ...]:
        """The names of sam-edge's own entries, in order."""
        return tuple(entry.name for entry in sorted(self._built_in().values(), key=lambda one: one.rank))

    def __iter__(self) -> Iterator[E]:
        """The entries known so far; looking for other packages' takes tens of milliseconds, so that only an
        unknown name, or `load_extensions`, does."""
        return iter(self._entries())

    def __contains__(self, name: object) -> bool:
        if name not in self._built_in() and name not in self._added:
            load_extensions()
        return name in self._built_in() or name in self._added

    def get(self, name: str) -> E:
        """The entry of that name.

        Raises:
            SamEdgeError: there is none; lists those that there are.
        """
        if name not in self:
            raise SamEdgeError(f"unknown {self.what} {name!r}; expected one of: {', '.join(self.names())}")
        return self._built_in().get(name) or self._added[name]

    def choose(self, names: str) -> tuple[str, ...]:
        """The comma-separated `names`, each once, in the registry's order.

        Raises:
            SamEdgeError: one is unknown.
        """
        asked = {self.get(name).name for name in names.split(",")}
        return tuple(name for name in self.names() if name in asked)


def load_extensions() -> None:
    """Import the modules of other packages that the entry points `sam_edge.extensions` name, once.

    Raises:
        SamEdgeError: one cannot be imported; names its package.
    """
    problem = _load_extensions()
    if problem is not None:
        raise SamEdgeError(problem)


@cache
def _load_extensions() -> str | None:
    """Import them; returns what is wrong with the first that cannot be imported, which a second import of
    half a module would hide."""
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group=EXTENSIONS), key=lambda one: one.name):
        try:
            point.load()
        except Exception as error:
            package = point.dist.name if point.dist is not None else point.value
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return (
                f"the extension {point.name} of {package} cannot be imported ({reason}); repair or "
                f"uninstall {package}"
            )
    return None
