"""`sam-edge models`: the models that can be exported."""

from __future__ import annotations

import argparse
import json


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    from sam_edge.models import catalogue

    rows = catalogue.rows()
    if args.json:
        print(json.dumps({"models": rows}, indent=2))
        return 0
    for row in rows:
        print(
            f"{row['name']:14} {row['parameters'] / 1e6:7.1f} M  {row['input_size']:5} px  "
            f"{row['license']:11} {row['file']}{'  (embedded)' if row['embedded'] else ''}"
        )
    return 0
