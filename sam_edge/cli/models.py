"""`sam-edge models`: list the models that can be exported."""

from __future__ import annotations

import argparse
import json

from .options import add_json


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    from sam_edge.models import catalogue

    rows = catalogue.rows()
    if args.json:
        print(json.dumps({"models": rows}, indent=2))
        return 0
    for row in rows:
        where = " (embedded)" if row["embedded"] else ""
        print(
            f"{row['name']:22} {row['parameters'] / 1e6:6.1f} M {row['encoder_gmacs']:>7} GMACs "
            f"{row['input_size']:5} px  {row['file']}{where}, {row['license']}"
        )
    return 0
