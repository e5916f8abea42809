"""Get at the argument parsers of commands without running the commands.

Both `sam-edge COMMAND` and `python -m tools.NAME` build their parser when they are called. While a function
of this module calls them, `ArgumentParser.parse_args` is replaced by one that stops right after parsing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import runpy
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock


class _ParsedError(BaseException):
    """Ends a command after its arguments were parsed; not an `Exception`, so that no command handles it."""

    def __init__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace | None) -> None:
        self.parser = parser
        self.namespace = namespace


def parser_of(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The top-level parser of a command, for example of `["sam-edge", "export"]`."""
    return _intercept(argv, parse=False).parser


def subparsers(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Subcommand -> its parser and its one-line help; empty where there are no subcommands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (sub, helps.get(name, "")) for name, sub in action.choices.items()}
    return {}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of `sam-edge ...` or `python -m tools.NAME ...` as the command itself parses them.

    Raises:
        ValueError: the command refuses them; the message is what it printed.
    """
    namespace = _intercept(argv, parse=True).namespace
    assert namespace is not None
    return namespace


def _intercept(argv: Sequence[str], parse: bool) -> _ParsedError:
    original = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        raise _ParsedError(self, original(self, args, namespace) if parse else None)

    errors = io.StringIO()
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        contextlib.redirect_stderr(errors),
        contextlib.redirect_stdout(errors),
    ):
        try:
            code = _runner(argv)()
        except _ParsedError as parsed:
            return parsed
        except SystemExit as end:
            code = end.code
    raise ValueError(f"{' '.join(argv)}: exit code {code}: {errors.getvalue().strip()}")


def _runner(argv: Sequence[str]) -> Callable[[], Any]:
    program, *arguments = argv
    if program == "sam-edge":
        from sam_edge.cli import main

        return lambda: main(arguments)
    if program in ("python", "python3") and arguments[0] == "-m":
        return lambda: _run_module(arguments[1], arguments[2:])
    raise ValueError(f"{program} is neither sam-edge nor python -m")


def _run_module(module: str, arguments: Sequence[str]) -> None:
    with mock.patch.object(sys, "argv", [module, *arguments]), warnings.catch_warnings():
        # The module may have been imported before; it stops at its arguments, so that does not matter.
        warnings.simplefilter("ignore", RuntimeWarning)
        runpy.run_module(module, run_name="__main__", alter_sys=False)
