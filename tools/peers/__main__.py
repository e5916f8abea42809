"""Measures sam-edge beside `segment_anything` and `samexporter`, each in an environment of its own.

    python -m tools.peers BUNDLE --environments DIR [--checkpoint FILE] [--install]

BUNDLE is of a family whose decoder is SAM's; FILE is the checkpoint that it was made from (default: the
embedded one). Every peer takes its turn in every round, in random order, in a fresh process: load, encode a
1920 x 1080 image and click on it repeatedly, then peak memory. Ratios of medians are what counts.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sam_edge.benchmarks.measure.machine import describe
from sam_edge.bundle.bundle import Bundle, open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.errors import SamEdgeError
from sam_edge.system.files import check_writable, write_atomically
from tools.peers.environments import check, copy_package, install
from tools.peers.roster import check_checkpoint, chosen, export_with_samexporter, roster
from tools.peers.session import Peer, Session, agreement, installed_sizes
from tools.peers.table import markdown
from tools.shared.commands import check_positive, exit_code
from tools.shared.images import FULL_HD, photograph

MEASURES = ("images", "imports", "masks", "everything")
_ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0 done, 1 the work failed, 2 the input was wrong."""
    try:
        return exit_code(lambda: run(parsed(argv)))
    except KeyboardInterrupt:
        print("interrupted; --out has what was measured", file=sys.stderr)
        return 130


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--environments", type=Path, required=True, metavar="DIR")
    parser.add_argument("--install", action="store_true", help="make the environments that DIR does not have")
    parser.add_argument("--sam-edge", default=str(_ROOT), help="what to install: a source tree or a wheel")
    parser.add_argument(
        "--exports", type=Path, help="folder for what samexporter exports (default: DIR/exports)"
    )
    parser.add_argument("--peers", default="", help="ids, separated by commas (default: all)")
    parser.add_argument("--measure", default=",".join(MEASURES), help="one or more of %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="how many rounds")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="seconds of encoding and of clicking in each turn"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--everything-repeats", type=int, default=1)
    parser.add_argument("--pred-iou-thresh", type=float, help="default: the bundle's")
    parser.add_argument("--stability-score-thresh", type=float, help="default: the bundle's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the report in JSON, written after every turn")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Check everything, install what was asked for, measure."""
    measures = args.measure.split(",")
    if unknown := [name for name in measures if name not in MEASURES]:
        raise SamEdgeError(f"--measure {', '.join(unknown)}: expected one or more of {', '.join(MEASURES)}")
    check_positive(args, "repeats", "threads", "points_per_side", "everything_repeats")
    if args.out is not None:
        check_writable(args.out)
    bundle = open_bundle(args.bundle)
    for variant in bundle.manifest.variants:
        bundle.check_files(variant)
    checkpoint = check_checkpoint(bundle, args.checkpoint)
    environments: Path = args.environments.absolute()
    name = bundle.manifest.model.name
    folder = f"{name}-{bundle.manifest.checkpoint_sha256[:8]}"
    exports = (args.exports or environments / "exports").absolute() / folder
    everyone, absent = roster(bundle, checkpoint, exports)
    peers = chosen(everyone, [one for one in args.peers.split(",") if one])
    needed = list(dict.fromkeys(peer.environment for peer in peers))
    if args.install:
        install(needed, environments, args.sam_edge)
    check(needed, environments)
    report = empty_report(args, bundle, measures, peers, absent)

    def keep() -> None:
        if args.out is not None:
            write_atomically(args.out, (json.dumps(report, indent=1) + "\n").encode())

    with tempfile.TemporaryDirectory() as temporary:
        package = copy_package(Path(temporary))
        if "samexporter" in needed:
            export_with_samexporter(name, checkpoint, exports, environments, package)
        order = random.Random(args.seed)
        session = Session(environments, package, args.threads, args.repeats, args.seconds, order, keep)
        measure(session, bundle, peers, report)
    report["partial"] = False
    keep()
    print(json.dumps(report, indent=1) if args.json else markdown(report))
    return 0


def empty_report(
    args: argparse.Namespace,
    bundle: Bundle,
    measures: list[str],
    peers: list[Peer],
    absent: dict[str, str],
) -> dict[str, Any]:
    """The report before anything is measured."""
    manifest = bundle.manifest
    thresholds = {
        name: getattr(manifest, name) if getattr(args, name) is None else getattr(args, name)
        for name in ("pred_iou_thresh", "stability_score_thresh")
    }
    facts = describe(args.threads)
    return {
        "schema": 1,
        "partial": True,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {name: facts[name] for name in ("cpu", "cores", "os", "python")},
        "model": {
            "family": manifest.model.family,
            "name": manifest.model.name,
            "input_size": list(manifest.coordinate_space.size),
            "checkpoint_sha256": manifest.checkpoint_sha256,
        },
        "settings": {
            **{name: getattr(args, name) for name in ("threads", "repeats", "seconds", "seed")},
            "everything_repeats": args.everything_repeats,
            "everything": {"points_per_side": args.points_per_side, **thresholds},
            "image_size": list(FULL_HD),
            "measure": measures,
        },
        "rows": {peer.id: {"id": peer.id, "environment": peer.environment} for peer in peers},
        "absent": absent,
        "installed_mb": {},
    }


def measure(session: Session, bundle: Bundle, peers: list[Peer], report: dict[str, Any]) -> None:
    """Make the measurements in the report's settings, and add them to the report."""
    rows, settings = report["rows"], report["settings"]
    report["installed_mb"] = installed_sizes(peers, session)
    image = session.package / "image.npy"
    np.save(image, photograph(FULL_HD))
    for name in settings["measure"]:
        match name:
            case "images":
                session.images(peers, rows, image)
            case "imports":
                session.imports(peers, rows)
            case "masks":
                golden = read_golden(bundle.check_golden())
                agreement(session, peers, golden, rows, session.package)
            case "everything":
                repeats = settings["everything_repeats"]
                session.everything(peers, rows, image, repeats, **settings["everything"])


if __name__ == "__main__":
    sys.exit(main())
