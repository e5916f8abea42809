"""The command line of a tool."""

from __future__ import annotations

import argparse


def tool_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m tools.NAME` whose `--help` is the module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m tools.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
