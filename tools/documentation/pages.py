"""Reference pages generated from the code, so that they cannot disagree with it.

python -m tools.documentation.pages        # list the generated pages
python -m tools.documentation.pages PATH   # print one of them, for example reference/cli.md
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sam_edge
from sam_edge import errors
from tools.documentation.command_line import parser_of, subparsers
from tools.models_table import markdown as models_table

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "sam_edge" / "bundle" / "manifest.schema.json"

# Section of the Python page -> public names of `sam_edge`. Names in `__all__` that no section has are listed
# under "More", errors and warnings on their own page.
PYTHON_SECTIONS = {
    "Load and predict": ("load", "Sam"),
    "Values": ("Prompts", "Masks", "MaskRecord", "ImageEmbedding", "EmbeddingCache", "Choice", "DeviceName"),
    "In place of segment_anything": ("SamPredictor", "SamAutomaticMaskGenerator", "sam_model_registry"),
}
# Section -> public names below the top level, as "module:name".
PYTHON_MODULES = {
    "Write a backend": (
        "sam_edge.backends:Backend",
        "sam_edge.backends:Session",
        "sam_edge.backends:DeviceInfo",
    ),
    "For an app's tests": ("sam_edge.testing:mock_sam",),
    "Masks as arrays": (
        "sam_edge.imaging.regions:clean",
        "sam_edge.imaging.regions:label",
        "sam_edge.imaging.regions:remove_small_regions",
    ),
    "Text": ("sam_edge.tasks.text:mask_features", "sam_edge.tasks.text:text_features"),
}


PYTHON_INTRO = """\
# Python API

`import sam_edge` needs the standard library and NumPy; an inference runtime is imported when a bundle is
loaded. Images are `(H, W, 3)` uint8 RGB arrays and coordinates are pixels of the original image.
Exceptions have [a page of their own](errors.md).
"""
CLI_INTRO = """\
# Command line

Each command prints JSON and nothing else when given `--json`. Exit codes: 0 done, 1 the work failed
(parity, conversion), 2 the input was wrong, 130 interrupted.
"""
MANIFEST_INTRO = """\
# Manifest

Every bundle has a `manifest.json`, from which a runtime learns everything that it has to know about a
model. This page lists its fields, generated from `sam_edge/bundle/manifest.schema.json` (JSON Schema
2020-12). The model's facts are also in each artifact: ONNX `metadata_props`, OpenVINO `rt_info`, Core ML
`user_defined_metadata`.
"""
ERRORS_INTRO = """\
# Errors

Every error that sam-edge raises on purpose is a `sam_edge.SamEdgeError`. Its message says what was
wrong, what was expected and what to do next. The command line prints the message without a traceback and
ends with the error's exit code: 2 where the input was wrong, 1 where the work failed.
"""
MODELS_INTRO = """\
# Models

Every model that can be exported: `sam-edge models` prints this list, `sam-edge download NAME` fetches a
checkpoint and checks its size and hash where they are known. Hashes marked "third party" were recorded
by others who had the file, not by its publishers. GMACs are billions of multiply-accumulates of the
image encoder for one image at its input size.
"""


def python_page() -> str:
    """Every public name of `sam_edge`, rendered by mkdocstrings."""
    lines = [PYTHON_INTRO]
    listed = {name for names in PYTHON_SECTIONS.values() for name in names}
    rest = [
        name for name in sam_edge.__all__ if name not in listed and not _is_error(name) and name[0] != "_"
    ]
    sections = {**PYTHON_SECTIONS, **({"More": tuple(rest)} if rest else {})}
    for title, names in sections.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += _directive(f"sam_edge.{name}", getattr(sam_edge, name))
    for title, entries in PYTHON_MODULES.items():
        lines += [f"## {title}", ""]
        for entry in entries:
            module, _, name = entry.partition(":")
            lines += [f"`from {module} import {name}`", ""]
            lines += _directive(f"{module}.{name}", getattr(importlib.import_module(module), name))
    return "\n".join(lines)


def _is_error(name: str) -> bool:
    value = getattr(sam_edge, name)
    return isinstance(value, type) and issubclass(value, (Exception, Warning))


def _directive(path: str, value: object) -> list[str]:
    if isinstance(value, dict):  # a registry is data, which mkdocstrings would show without its keys
        keys = ", ".join(f"`{key}`" for key in value)
        return [f"### `{path.rpartition('.')[2]}`", "", f"A dictionary from name to function: {keys}.", ""]
    return [f"::: {path}", ""]


def cli_page() -> str:
    """Every command and its options, from the argument parsers themselves."""
    os.environ["COLUMNS"] = "88"  # argparse wraps usage lines to the terminal's width
    os.environ.pop("SAM_EDGE_CACHE", None)  # the default of --cache
    commands = subparsers(parser_of(["sam-edge"]))
    lines = [
        CLI_INTRO,
        "| command | what it does |",
        "|---|---|",
        *(f"| [`{name}`](#{name}) | {_cell(text)} |" for name, (_, text) in commands.items()),
        "",
    ]
    for name in commands:
        parser, _ = subparsers(parser_of(["sam-edge", name]))[name]
        lines += [f"## {name}", "", parser.description or "", "", "```text"]
        indent = " " * len("usage: ")
        usage = parser.format_usage().removeprefix("usage: ").rstrip()
        lines += [usage.replace(f"\n{indent}", "\n"), "```", ""]
        lines += [_option(parser, action) for action in parser._actions if action.dest != "help"]
        lines.append("")
    return "\n".join(lines)


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else None
    if action.option_strings:
        value = "" if action.nargs == 0 else f" {metavar or action.dest.upper()}"
        name = f"{', '.join(action.option_strings)}{value}"
    else:
        name = metavar or action.dest
    notes = ["required"] if action.required and action.option_strings else []
    if action.choices is not None:
        notes.append(f"one of {', '.join(f'`{choice}`' for choice in action.choices)}")
    meaning = parser._get_formatter()._expand_help(action) if action.help else ""
    if action.default not in (None, False, argparse.SUPPRESS, [], "") and "(default" not in meaning:
        notes.append(f"default `{_public_path(action.default)}`")
    return _entry(name, ", ".join(notes), meaning)


def _entry(name: str, notes: str, meaning: str) -> str:
    """An entry of a list: tables with a column of prose are hard to read on a phone."""
    shown = f"- **`{name}`**{f' ({notes})' if notes else ''}"
    return re.sub(r"\s+", " ", f"{shown}: {meaning}" if meaning else shown)


def _public_path(value: object) -> str:
    """A default as text; paths inside this checkout without the checkout."""
    return str(value).replace(f"{ROOT}{os.sep}", "")


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def manifest_page() -> str:
    """`manifest.json` field by field, from its JSON schema."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    lines = [
        MANIFEST_INTRO,
        "## manifest.json",
        "",
        *_schema_fields(schema, ()),
    ]
    for path, node in _nested(schema, ()):
        lines += [f"## {'.'.join(path)}", "", *_description(node), *_schema_fields(node, path)]
    for name, node in schema["$defs"].items():
        lines += [f"## {name}", "", *_description(node)]
        lines += _schema_fields(node, None) if "properties" in node else [f"{_type(node)}.", ""]
    return "\n".join(lines)


def _nested(node: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Objects that are described in place, depth first."""
    for name, child in node.get("properties", {}).items():
        if "properties" in child:
            yield (*path, name), child
            yield from _nested(child, (*path, name))


def _description(node: dict[str, Any]) -> list[str]:
    return [f"{node['description']}.", ""] if "description" in node else []


def _schema_fields(node: dict[str, Any], path: tuple[str, ...] | None) -> list[str]:
    """The fields of an object; `path` is its section's, or None if nested objects have no sections."""
    lines = []
    for name, child in node.get("properties", {}).items():
        kind = _type(child)
        if path is not None and "properties" in child:
            kind = f"[{kind}](#{''.join((*path, name)).lower()})"
        optional = "" if name in node.get("required", ()) else ", optional"
        lines.append(_entry(name, f"{kind}{optional}", child.get("description", "")))
    return [*lines, ""]


def _type(node: dict[str, Any]) -> str:
    """A JSON schema's type as one table cell."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in node:
        return f"`{json.dumps(node['const'])}`"
    if "enum" in node:
        return " or ".join(f"`{json.dumps(value)}`" for value in node["enum"])
    for key in ("anyOf", "oneOf"):
        if key in node:
            return " or ".join(_type(child) for child in node[key])
    kind = node.get("type", "any")
    if isinstance(kind, list):
        return _with_range(" or ".join(kind), node)
    if kind == "array":
        low, high = node.get("minItems"), node.get("maxItems")
        count = f"{low} " if low is not None and low == high else "one or more " if low == 1 else ""
        items = _type(node.get("items", {}))
        plural = re.sub(r"^(integer|number|string|object)", r"\1s", items)
        return f"array of {count}{plural}"
    if kind == "string" and "pattern" in node:
        return f"string matching `{node['pattern']}`"
    return _with_range(kind, node)


def _with_range(kind: str, node: dict[str, Any]) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {low} to {high}"
    if low is not None:
        return f"{kind}, at least {low}"
    return f"{kind}, at most {high}" if high is not None else kind


def errors_page() -> str:
    """The tree of exceptions, from `sam_edge.errors`."""
    lines = [
        ERRORS_INTRO,
        "```text",
        *_tree(errors.SamEdgeError, ""),
        "```",
        "",
        "| exception | raised for | exit code |",
        "|---|---|---|",
    ]
    for kind in _descendants(errors.SamEdgeError):
        lines.append(f"| `{kind.__name__}` | {_cell(_summary(kind))} | {kind.exit_code} |")
    warning = errors.SamEdgeWarning
    lines += ["", f"`{warning.__name__}` is a warning: {_summary(warning)}", ""]
    return "\n".join(lines)


def _descendants(root: type[errors.SamEdgeError]) -> Iterator[type[errors.SamEdgeError]]:
    yield root
    for child in _children(root):
        yield from _descendants(child)


def _children(root: type[errors.SamEdgeError]) -> list[type[errors.SamEdgeError]]:
    """Subclasses in `sam_edge.errors`, in the order of their definition."""
    members = [value for value in vars(errors).values() if inspect.isclass(value)]
    return [value for value in members if issubclass(value, root) and root in value.__bases__]


def _tree(root: type[errors.SamEdgeError], indent: str) -> list[str]:
    lines = [root.__name__] if not indent else []
    children = _children(root)
    for child in children:
        last = child is children[-1]
        lines.append(f"{indent}{'└── ' if last else '├── '}{child.__name__}")
        lines += _tree(child, indent + ("    " if last else "│   "))
    return lines


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n\n")[0]


def models_page() -> str:
    """The catalogue, as in models/README.md."""
    return f"{MODELS_INTRO}\n{models_table()}"


PAGES: dict[str, Callable[[], str]] = {
    "reference/python.md": python_page,
    "reference/cli.md": cli_page,
    "reference/manifest.md": manifest_page,
    "reference/errors.md": errors_page,
    "reference/models.md": models_page,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print one generated page, or the list of them."""
    parser = argparse.ArgumentParser(prog="python -m tools.documentation.pages", description=__doc__)
    parser.add_argument("page", nargs="?", choices=sorted(PAGES))
    page = parser.parse_args(argv).page
    lines: Iterable[str] = [PAGES[page]()] if page else PAGES
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
