"""The command line. Each subcommand is a module, imported when it is asked for."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from ..errors import BackendError, SamEdgeError, SamEdgeWarning

# name -> (module with `configure(parser)` and `run(args) -> int`, help)
_COMMANDS = {
    "export": ("sam_edge.export.cli", "turn a checkpoint into a proven bundle"),
    "verify": ("sam_edge.cli.verify", "check a bundle's files and its masks"),
    "predict": ("sam_edge.cli.predict", "segment a picture"),
    "everything": ("sam_edge.cli.everything", "segment everything in a picture"),
    "serve": ("sam_edge.cli.serve", "open a page to try a bundle in a browser"),
    "benchmark": ("sam_edge.benchmarks.cli", "measure every variant on every device here"),
    "compare": ("sam_edge.benchmarks.compare.cli", "say what changed between two benchmarks"),
    "info": ("sam_edge.cli.info", "say what a bundle holds"),
    "download": ("sam_edge.cli.download", "fetch a published checkpoint"),
    "models": ("sam_edge.cli.models", "list the models that can be exported"),
    "devices": ("sam_edge.cli.devices", "list the backends and devices here"),
}
# What a subcommand needs beyond the runtime, and the extra that brings it.
_EXTRAS = {
    "torch": "export",
    "onnx": "export",
    "onnxscript": "export",
    "onnxsim": "export",
    "safetensors": "export",
    "requests": "export",
    "PIL": "cli",
    "pycocotools": "bench",
    "starlette": "serve",
    "uvicorn": "serve",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 the work failed, 2 the input was wrong."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with _own_warnings():
        return _main(arguments)


def _main(arguments: list[str]) -> int:
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader, `head` say, has enough; Python would say so again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SamEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _own_warnings() -> Iterator[None]:
    """Our warnings in one line each, without the place in the code."""
    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, SamEdgeWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            shown(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        raise SamEdgeError(f"{message}; see {self.prog} --help")


def _run(arguments: list[str]) -> int:
    from .. import __version__

    parser = _Parser(prog="sam-edge", description="Export Segment Anything once, run it anywhere.")
    parser.add_argument("--version", action="version", version=f"sam-edge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Only the command asked for is imported: the others' packages may not be installed.
    asked = next((a for a in arguments if not a.startswith("-")), "")
    try:
        module = importlib.import_module(_COMMANDS[asked][0]) if asked in _COMMANDS else None
        for name, (_, help_text) in _COMMANDS.items():
            sub = commands.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
            if name == asked and module is not None:
                module.configure(sub)
        try:
            args = parser.parse_args(_joined(arguments))
        except SystemExit as stop:
            return int(stop.code or 0)
        return int(module.run(args)) if module is not None else 2
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        extra = asked if asked in ("export", "serve") else _EXTRAS[missing]
        raise BackendError(
            f"sam-edge {asked} needs {missing}, which is not installed; pip install 'sam-edge[{extra}]'"
        ) from error


def _joined(arguments: list[str]) -> list[str]:
    """`--point -5,3` as `--point=-5,3`: argparse would take the number for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--point", "--box") and re.match(r"-[\d.]", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
