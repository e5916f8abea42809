"""The command line, `sam-edge COMMAND`: one module per command, imported when that command is run.

options   options that several commands share
outputs   files and JSON rows that several commands write
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from ..errors import BackendError, SamEdgeError, SamEdgeWarning
from ..system.install import install_command

# command -> (module with `configure(parser)` and `run(args) -> int`, help)
_COMMANDS = {
    "export": ("sam_edge.export.cli", "export a checkpoint as a verified bundle"),
    "verify": ("sam_edge.cli.verify", "check a bundle's files and the masks of its variants"),
    "predict": ("sam_edge.cli.predict", "segment objects in an image by points, boxes, a mask or a text"),
    "everything": ("sam_edge.cli.everything", "segment every object in an image"),
    "serve": ("sam_edge.cli.serve", "serve a page to try a bundle in a browser"),
    "benchmark": ("sam_edge.benchmarks.cli", "measure every variant on every available device"),
    "compare": ("sam_edge.benchmarks.compare.cli", "compare two benchmark reports"),
    "info": ("sam_edge.cli.info", "describe a bundle"),
    "download": ("sam_edge.cli.download", "download a published checkpoint"),
    "models": ("sam_edge.cli.models", "list the models that can be exported"),
    "devices": ("sam_edge.cli.devices", "list backends and devices"),
}
# Optional package -> the extra that installs it.
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
    """Run one command.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code: 0 done, 1 the work failed, 2 the input was wrong, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with _one_line_warnings():
        return _main(arguments)


def build_parser(commands: Iterable[str] | None = None) -> _Parser:
    """Build the parser of the command line, for documentation and tests.

    Args:
        commands: the commands whose options to add; None for all. The others are listed without options. Each
            one's module is imported: that of `export` requires the extra `export`; the others require nothing
            beyond the runtime.

    Raises:
        ModuleNotFoundError: a package that one of `commands` requires is not installed.
    """
    from .. import __version__

    included = set(_COMMANDS if commands is None else commands)
    parser = _Parser(prog="sam-edge", description="Export Segment Anything once, run it anywhere.")
    parser.add_argument("--version", action="version", version=f"sam-edge {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, help_text) in _COMMANDS.items():
        description = f"{help_text[0].upper()}{help_text[1:]}."
        subparser = subparsers.add_parser(name, help=help_text, description=description)
        if name in included:
            importlib.import_module(module).configure(subparser)
    return parser


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line, like every other error of sam-edge.

    Attributes:
        command: what is run, where that is known: the root parser reports its unrecognized arguments.
    """

    command = ""

    def error(self, message: str) -> NoReturn:
        raise SamEdgeError(f"{message}; see {self.prog}{self.command and ' '}{self.command} --help")


def _main(arguments: list[str]) -> int:
    """Run one command, and turn exceptions into messages and exit codes."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe; without this Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SamEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(arguments: list[str]) -> int:
    # Only this command's module is imported: other commands' packages may not be installed.
    command = next((a for a in arguments if not a.startswith("-")), "")
    try:
        parser = build_parser([command])
        parser.command = command if command in _COMMANDS else ""
        try:
            args = parser.parse_args(_join_negative_values(arguments))
        except SystemExit as stop:
            return int(stop.code or 0)
        return int(importlib.import_module(_COMMANDS[args.command][0]).run(args))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        extra = command if command in ("export", "serve") else _EXTRAS[missing]
        raise BackendError(
            f"sam-edge {command} requires {missing}, which is not installed; {install_command(extra)}"
        ) from error


def _join_negative_values(arguments: list[str]) -> list[str]:
    """Turn `--point -5,3` into `--point=-5,3`, which argparse does not take for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--point", "--box") and re.match(r"-[\d.]", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Print sam-edge's own warnings in one line each, without the place in the code."""
    show_default = warnings.showwarning

    def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, SamEdgeWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            show_default(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = show_default
