"""`sam-edge devices`: list backends and devices, and which of them a bundle would run on."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..backends import all_devices, get_backend
from ..bundle.bundle import open_bundle
from ..runtime.choice import Request, explain_choice
from .options import add_device, add_json, add_precision


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "bundle", type=Path, nargs="?", help="explain for this bundle why each is chosen or not"
    )
    add_device(parser)
    add_precision(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print every device of every backend; with a bundle, the choices that `load` would make."""
    if args.backend != "auto":
        get_backend(args.backend)
    choices = None
    if args.bundle is not None:
        request = Request(args.backend, args.device, args.precision)
        choices = explain_choice(open_bundle(args.bundle), request)
    if args.json:
        result = {"devices": [asdict(device) for device in all_devices()]}
        if choices is not None:
            result["choices"] = [asdict(choice) for choice in choices]
        print(json.dumps(result, indent=2))
        return 0
    if choices is not None:
        for choice in choices:
            print(choice)
        return 0
    for device in all_devices():
        state = "available" if device.available else device.reason
        print(f"{device.backend:12} {device.kind:5} {device.name:30} {state}")
    return 0
