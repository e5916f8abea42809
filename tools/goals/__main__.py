"""Prints a table of sam-edge's performance goals and whether they are reached.

    python -m tools.peers BUNDLE ... --out FILE.json
    python -m tools.goals FILE.json ... --measure BUNDLE ... --checkpoint FILE ...

Comparisons with other packages come from reports of `peers`. The rest is measured on each BUNDLE (see
`tools.goals.measure`), which was made from one of the checkpoints (the embedded model's need not be given);
--keep saves these measurements as reports too. Goals without figures are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sam_edge.bundle.bundle import open_bundle
from sam_edge.errors import CheckpointError, OutputError, SamEdgeError
from sam_edge.system.files import sha256_file, write_atomically
from tools.goals.goals import markdown
from tools.peers.roster import check_checkpoint
from tools.shared.commands import check_positive, exit_code


def read(path: Path) -> dict[str, Any]:
    """Read a report of `peers`.

    Raises:
        SamEdgeError: it is not one.
    """
    try:
        report = json.loads(path.read_text("utf-8"))
        if all(key in report for key in ("model", "rows", "machine", "settings")):
            return dict(report)
    except (OSError, ValueError) as error:
        raise SamEdgeError(
            f"{path} cannot be read ({error}); expected a file written by `peers --out`"
        ) from error
    raise SamEdgeError(f"{path} is not a report of `peers`; expected a file written by its --out")


def measure(
    bundles: Sequence[Path],
    checkpoints: Sequence[Path],
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Measure each bundle, and pass its report to `keep` as soon as it is made.

    Raises:
        SamEdgeError: a bundle or its checkpoint is missing; raised before anything is measured.
    """
    for path in checkpoints:
        if not path.is_file():
            raise CheckpointError(f"checkpoint {path} is not a file")
    by_hash = {sha256_file(path): path for path in checkpoints}
    opened = [open_bundle(path) for path in bundles]
    made_from = [check_checkpoint(one, by_hash.get(one.manifest.model_id)) for one in opened]
    # Needs PyTorch, which a table of reports does not.
    from tools.goals.measure import measured

    found = []
    for one, checkpoint in zip(opened, made_from, strict=True):
        found.append(measured(one.path, checkpoint, **settings))
        keep(found[-1])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 0 done, 1 the work failed, 2 the input was wrong."""
    return exit_code(lambda: run(parsed(argv)))


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.goals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "reports", type=Path, nargs="*", metavar="FILE", help="written by --out of `peers` or by --keep"
    )
    parser.add_argument("--measure", type=Path, nargs="+", default=[], metavar="BUNDLE")
    parser.add_argument("--checkpoint", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder for what is measured, as MODEL.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn of an encoder")
    parser.add_argument("--points-per-side", type=int, default=32, help="for everything-mode")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Read, measure, print."""
    if not args.reports and not args.measure:
        raise SamEdgeError("nothing to print; expected reports of `peers`, or --measure BUNDLE")
    check_positive(args, "threads", "rounds", "points_per_side")
    reports = [read(path) for path in args.reports]
    if args.keep is not None:
        try:
            args.keep.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {args.keep}: {error.strerror}; choose another folder") from error
    settings = {key: getattr(args, key) for key in ("threads", "rounds", "seconds", "points_per_side")}

    def keep(report: dict[str, Any]) -> None:
        if args.keep is not None:
            path = args.keep / f"{report['model']['name']}.json"
            write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())

    def show_step(what: str) -> None:
        print(what, file=sys.stderr)

    found = measure(args.measure, args.checkpoint, keep, report_step=show_step, **settings)
    print(markdown([*reports, *found]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
