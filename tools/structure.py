"""Draws which folder imports which, and fails where modules import each other in a circle.

    python -m tools.structure

Prints every folder with the folders that it imports, then how many import circles, modules over 400 lines,
functions over 60 lines and functions with more than 6 positional parameters there are. Every import counts
alike: at module level, inside a function, and under `TYPE_CHECKING`. The exit code is 1 where there is a
circle of modules or of folders, or where the package imports `tools`; large parts are only listed.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Folder -> the package it is installed as; `tools` is not installed.
PACKAGES = {
    "sam_edge": "sam_edge",
    "export": "sam_edge.export",
    "models": "sam_edge.models",
    "benchmarks": "sam_edge.benchmarks",
    "tools": "tools",
}
# Modules that hold little but data; they may be long.
DATA_TABLES = ("sam_edge.models.catalogue",)
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_POSITIONAL = 6
# Interfaces of other packages, which are as they were published.
PUBLISHED = {"sam_edge.compat.automatic_mask_generator.__init__: 14"}

Graph = dict[str, set[str]]


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def folder(self) -> str:
        """The package that holds it; a package's `__init__` belongs to the package itself."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


def read_modules(root: Path = ROOT) -> dict[str, Module]:
    """Every module of the packages, by its import name."""
    modules = {}
    for folder, package in PACKAGES.items():
        for path in sorted((root / folder).rglob("*.py")):
            inside = path.relative_to(root / folder)
            if folder == "sam_edge" and inside.parts[0] in PACKAGES:
                continue  # a link to another package
            parts = [part for part in inside.with_suffix("").parts if part != "__init__"]
            name = ".".join([package, *parts])
            text = path.read_text("utf-8")
            modules[name] = Module(name, path, ast.parse(text), len(text.splitlines()))
    return modules


def imports(module: Module, known: Mapping[str, Module]) -> set[str]:
    """The modules among `known` that `module` imports anywhere."""
    found = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {_nearest(alias.name, known) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in known else _nearest(base, known))
    return found - {module.name, ""}


def import_graph(modules: Mapping[str, Module]) -> Graph:
    """Which module imports which."""
    return {name: imports(module, modules) for name, module in modules.items()}


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    """The package that an import statement is relative to, with what it names."""
    if not node.level:
        return node.module or ""
    package = module.folder.split(".")
    parents = package[: len(package) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _nearest(name: str, known: Mapping[str, Module]) -> str:
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            start = stack.index(node)
            component = stack[start:]
            del stack[start:]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def folder_graph(modules: Mapping[str, Module], graph: Graph) -> Graph:
    """Which folder imports which; the root package's `__init__` and `__main__` gather the public names."""
    folders: Graph = defaultdict(set)
    for name, others in graph.items():
        for other in others:
            here, there = modules[name].folder, modules[other].folder
            if here != there and "sam_edge" not in (here, there):
                folders[here].add(there)
    return folders


def functions(modules: Iterable[Module]) -> Iterator[tuple[str, int, int]]:
    """Name, lines and positional parameters of every function."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                positional = [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
                count = len([one for one in positional if one not in ("self", "cls")])
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield f"{module.name}.{node.name}", lines, count


def draw(folders: Graph) -> str:
    """Render a line for each folder, with the folders that it imports."""
    every = sorted({*folders, *(other for others in folders.values() for other in others)})
    width = max(map(len, every))
    lines = []
    for folder in every:
        arrows = ", ".join(_shorter(sorted(folders.get(folder, ()))))
        lines.append(f"{folder:{width}} -> {arrows}" if arrows else folder)
    return "\n".join(lines)


def _shorter(names: Iterable[str]) -> list[str]:
    return [name.removeprefix("sam_edge.") for name in names]


def wrong_imports(modules: Mapping[str, Module]) -> dict[str, list[str]]:
    """Import circles of modules and of folders, and imports of `tools` from the package."""
    graph = import_graph(modules)
    return {
        "import circles of modules": [" <-> ".join(one) for one in circles(graph)],
        "import circles of folders": [" <-> ".join(one) for one in circles(folder_graph(modules, graph))],
        "imports of tools from the package": [
            f"{name} -> {other}"
            for name, others in graph.items()
            for other in sorted(others)
            if other.split(".")[0] == "tools" and name.split(".")[0] != "tools"
        ],
    }


def large_parts(modules: Mapping[str, Module]) -> dict[str, list[str]]:
    """Modules, functions and signatures over the limits."""
    measured = list(functions(modules.values()))
    return {
        f"modules over {MAX_MODULE_LINES} lines": [
            f"{module.name}: {module.lines}"
            for module in modules.values()
            if module.lines > MAX_MODULE_LINES and module.name not in DATA_TABLES
        ],
        f"functions over {MAX_FUNCTION_LINES} lines": [
            f"{name}: {lines}" for name, lines, _ in measured if lines > MAX_FUNCTION_LINES
        ],
        f"functions of more than {MAX_POSITIONAL} positional parameters": [
            f"{name}: {count}" for name, _, count in measured if count > MAX_POSITIONAL
        ],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the drawing and the counts; 1 where an import is wrong or a part too large."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.structure", description=description)
    parser.add_argument("--quiet", action="store_true", help="print the counts only")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    modules = read_modules(args.root)
    if not args.quiet:
        print(draw(folder_graph(modules, import_graph(modules))), end="\n\n")
    counted = wrong_imports(modules) | large_parts(modules)
    for what, found in counted.items():
        print(f"{len(found)} {what}")
        for line in found:
            print(f"    {line}")
    return 1 if {line for found in counted.values() for line in found} - PUBLISHED else 0


if __name__ == "__main__":
    sys.exit(main())
