"""`sam-edge devices`: which backends and devices are here, and what would add the others."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from ..backends import backend_names, get_backend


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run(args: argparse.Namespace) -> int:
    """Print every device of every backend."""
    found = [device for name in backend_names() for device in get_backend(name).devices()]
    if args.json:
        print(json.dumps({"devices": [asdict(device) for device in found]}, indent=2))
        return 0
    for device in found:
        state = "available" if device.available else device.reason
        print(f"{device.backend:12} {device.kind:4} {device.name:28} {state}")
    return 0
