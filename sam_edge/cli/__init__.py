"""The command line. Each subcommand is a module, imported when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from ..errors import BackendError, SamEdgeError

# name -> (module with `configure(parser)` and `run(args) -> int`, help)
_COMMANDS = {
    "export": ("sam_edge.export.cli", "turn a checkpoint into a proven bundle"),
    "verify": ("sam_edge.cli.verify", "check a bundle's files and its masks"),
    "predict": ("sam_edge.cli.predict", "segment a picture"),
    "info": ("sam_edge.cli.info", "say what a bundle holds"),
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
    "PIL": "cli",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 the work failed, 2 the input was wrong."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except SamEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(arguments: list[str]) -> int:
    from .. import __version__

    parser = argparse.ArgumentParser(
        prog="sam-edge", description="Export Segment Anything once, run it anywhere."
    )
    parser.add_argument("--version", action="version", version=f"sam-edge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Only the command asked for is imported: the others' packages may not be installed.
    asked = next((a for a in arguments if not a.startswith("-")), None)
    module = None
    for name, (path, help_text) in _COMMANDS.items():
        sub = commands.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
        if name == asked:
            module = _import(name, path)
            module.configure(sub)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    assert module is not None
    return int(module.run(args))


def _import(name: str, path: str):  # type: ignore[no-untyped-def]
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        raise BackendError(
            f"sam-edge {name} needs {missing}, which is not installed; "
            f"pip install 'sam-edge[{_EXTRAS[missing]}]'"
        ) from error
