"""What command lines have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from sam_edge.errors import SamEdgeError


def exit_code(command: Callable[[], int]) -> int:
    """Run a command; a `SamEdgeError` becomes a message on stderr and its exit code."""
    try:
        return command()
    except SamEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def check_positive(args: argparse.Namespace, *names: str) -> None:
    """Raise `SamEdgeError` unless each of these arguments is 1 or more."""
    for name in names:
        if getattr(args, name) < 1:
            option = name.replace("_", "-")
            raise SamEdgeError(f"--{option} is {getattr(args, name)}; expected 1 or more")


def tool_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m tools.NAME` whose `--help` is the module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m tools.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
