"""sam-edge beside `segment_anything` and `samexporter`, in one session, each in an environment of its own.

    python -m tools.peers BUNDLE --environments DIR [--checkpoint FILE] [--install]

BUNDLE is of a family whose decoder is SAM's; FILE is the checkpoint that it was made from (not given: the
embedded one). Every peer takes its turn in every round, in random order, in a fresh process: load, encode a
1920 x 1080 image, click on it, again and again; then peak memory. Ratios of medians are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sam_edge.bundle.bundle import Bundle, open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.errors import BackendError, SamEdgeError
from sam_edge.system.files import check_writable, write_atomically
from tools.peers.environments import check, copy_package, install
from tools.peers.roster import check_checkpoint, chosen, export_with_samexporter, roster
from tools.peers.session import Peer, Session, agreement, installed_sizes
from tools.peers.table import markdown

MEASURES = ("images", "imports", "masks", "everything")
FULL_HD = (1080, 1920)
_ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0 done, 1 the work failed, 2 the input was wrong."""
    try:
        return run(parsed(argv))
    except SamEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; --out has what was measured", file=sys.stderr)
        return 130


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--environments", type=Path, required=True, metavar="DIR")
    parser.add_argument("--install", action="store_true", help="make the environments that are not in DIR")
    parser.add_argument("--sam-edge", default=str(_ROOT), help="what to install: a source tree or a wheel")
    parser.add_argument("--exports", type=Path, help="where samexporter's files go (default: DIR/exports)")
    parser.add_argument("--peers", default="", help="ids, separated by commas (default: all)")
    parser.add_argument("--measure", default=",".join(MEASURES), help="one or more of %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=2.0, help="of encoding and of clicking, a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--everything-repeats", type=int, default=1)
    parser.add_argument("--pred-iou-thresh", type=float, help="default: the bundle's")
    parser.add_argument("--stability-score-thresh", type=float, help="default: the bundle's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the report as JSON, written after every turn")
    parser.add_argument("--json", action="store_true", help="print the report and no table")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Check everything, install what was asked for, measure."""
    measures = args.measure.split(",")
    if unknown := [name for name in measures if name not in MEASURES]:
        raise SamEdgeError(f"--measure {', '.join(unknown)}: expected some of {', '.join(MEASURES)}")
    for name in ("repeats", "threads", "points_per_side", "everything_repeats"):
        if getattr(args, name) < 1:
            option = name.replace("_", "-")
            raise SamEdgeError(f"--{option} is {getattr(args, name)}; expected 1 or more")
    if args.out is not None:
        check_writable(args.out)
    bundle = open_bundle(args.bundle)
    for variant in bundle.manifest.variants:
        bundle.check_files(variant)
    checkpoint = check_checkpoint(bundle, args.checkpoint)
    environments: Path = args.environments.absolute()
    name = bundle.manifest.model.name
    exports = (
        args.exports or environments / "exports"
    ).absolute() / f"{name}-{bundle.manifest.checkpoint_sha256[:8]}"
    everyone, absent = roster(bundle, checkpoint, exports)
    peers = chosen(everyone, [one for one in args.peers.split(",") if one])
    needed = list(dict.fromkeys(peer.environment for peer in peers))
    if args.install:
        install(needed, environments, args.sam_edge)
    check(needed, environments)
    with tempfile.TemporaryDirectory() as folder:
        package = copy_package(Path(folder))
        if "samexporter" in needed:
            export_with_samexporter(name, checkpoint, exports, environments, package)
        report = measured(args, bundle, peers, absent, measures, environments, package)
    print(json.dumps(report, indent=1) if args.json else markdown(report))
    return 0


def measured(
    args: argparse.Namespace,
    bundle: Bundle,
    peers: list[Peer],
    absent: dict[str, str],
    measures: list[str],
    environments: Path,
    package: Path,
) -> dict[str, Any]:
    """The report."""
    rows: dict[str, dict[str, Any]] = {
        peer.id: {"id": peer.id, "environment": peer.environment} for peer in peers
    }
    options = {
        "points_per_side": args.points_per_side,
        "pred_iou_thresh": args.pred_iou_thresh,
        "stability_score_thresh": args.stability_score_thresh,
    }
    for key in ("pred_iou_thresh", "stability_score_thresh"):
        options[key] = getattr(bundle.manifest, key) if options[key] is None else options[key]
    report: dict[str, Any] = {
        "schema": 1,
        "partial": True,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "model": {
            "family": bundle.manifest.model.family,
            "name": bundle.manifest.model.name,
            "input_size": list(bundle.manifest.coordinate_space.size),
            "checkpoint_sha256": bundle.manifest.checkpoint_sha256,
        },
        "settings": {
            **{key: getattr(args, key) for key in ("threads", "repeats", "seconds", "seed")},
            "everything_repeats": args.everything_repeats,
            "everything": options,
            "image_size": list(FULL_HD),
            "measure": measures,
        },
        "rows": rows,
        "absent": absent,
        "installed_mb": {},
    }

    def keep() -> None:
        if args.out is not None:
            write_atomically(args.out, (json.dumps(report, indent=1) + "\n").encode())

    rng = np.random.default_rng(args.seed)
    session = Session(environments, package, args.threads, args.repeats, args.seconds, rng, keep)
    report["installed_mb"] = installed_sizes(peers, session)
    image = package / "image.npy"
    np.save(image, photograph(FULL_HD))
    for name in measures:
        match name:
            case "images":
                session.images(peers, rows, image)
            case "imports":
                session.imports(peers, rows)
            case "masks":
                golden = read_golden(bundle.check_golden())
                agreement(session, peers, peers[0], golden, rows, package)
            case "everything":
                session.everything(peers, rows, image, args.everything_repeats, **options)
    report["partial"] = False
    keep()
    return report


def photograph(size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H, W, 3): a packaged photograph at `size` (H, W)."""
    try:
        from PIL import Image
    except ImportError as error:
        raise BackendError("the peers' session needs Pillow; pip install 'sam-edge[cli]'") from error
    from sam_edge.models.photos import PHOTOS, read_photo

    return np.array(Image.fromarray(read_photo(PHOTOS[0])).resize((size[1], size[0])))


def machine() -> dict[str, Any]:
    """What the figures are of."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "os": platform.platform(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
