"""Exports the smallest model of every family in every format and precision, and prints a table.

    python -m tools.families_table FOLDER [NAME ...]

Each model's checkpoint is random, in its published layout; `sam-edge export`, `verify` and `predict` run on a
1920 x 1080 photograph as users run them. A model's row is kept in FOLDER, and is not measured twice. With
random weights the masks of INT8 mean nothing, so their gate is off (`--min-iou 0`), and the error of the
embeddings is checked instead: that of FP32 and FP16 may not exceed `LIMITS`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from sam_edge.models.catalogue import CATALOGUE, HERE
from tools.make_checkpoint import write_checkpoint
from tools.shared.commands import tool_parser

SMALLEST = (
    "mobile_sam",
    "sam2.1_hiera_tiny",
    "sam_hq_vit_tiny",
    "edge_sam",
    "efficient_sam_vitt",
    "efficientvit_sam_l0",
    "slimsam_77",
    "edgetam",
)
FORMATS, PRECISIONS = ("onnx", "openvino", "coreml"), ("fp32", "fp16", "int8")
LIMITS = {"fp32": 1e-3, "fp16": 2e-2}


def sam_edge(*arguments, log):
    """Run the command line: what it printed, and its peak memory in GB."""
    with log.open("w") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "sam_edge", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        printed = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"sam-edge {arguments[0]} exited with {child.returncode}; see {log}\n{printed[-2000:]}")
    return printed, usage.ru_maxrss / 1e6


def measure(name, folder):
    """Measure the row of `name`."""
    suffix = Path(CATALOGUE[name].checkpoint.file).suffix
    checkpoint, bundle = folder / f"{name}{suffix}", folder / name
    photo, log = folder / f"{name}.png", folder / f"{name}.log"
    write_checkpoint(name, checkpoint)
    every = ("--format", ",".join(FORMATS), "--precision", ",".join(PRECISIONS), "--min-iou", "0")
    _, memory = sam_edge("export", "--checkpoint", checkpoint, *every, "--out", bundle, log=log)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["model"]["name"] == name
    sizes = {v["id"]: sum(file["bytes"] for file in v["files"]) / 1e6 for v in manifest["variants"]}
    rows = {}
    for row in json.loads(sam_edge("verify", bundle, "--json", log=log)[0])["variants"]:
        error, mean = row["embedding_relative_error"], row["mean_iou"]
        precision = row["id"].partition("-")[2]
        if error > LIMITS.get(precision, float("inf")):
            sys.exit(f"{name} {row['id']}: relative error of the embeddings {error:.2g}")
        rows[row["id"]] = {"error": error, "mean_iou": mean, "mb": sizes[row["id"]]}
    Image.open(HERE / "photos" / "astronaut.jpg").resize((1920, 1080)).save(photo)
    found = json.loads(sam_edge("predict", bundle, photo, "--point", "900,300", "--json", log=log)[0])
    assert len(found["masks"]) == 1
    shutil.rmtree(bundle)
    checkpoint.unlink()
    return {"gb": memory, "variants": rows}


def table(rows):
    """Render, as Markdown, the error of the embeddings against the reference, by model and variant."""
    columns = [f"{kind} {precision}" for kind in FORMATS for precision in PRECISIONS]
    yield f"| model | {' | '.join(columns)} | peak GB |"
    yield "|---" * (len(columns) + 2) + "|"
    for name, row in rows.items():
        errors = (f"{row['variants'][column.replace(' ', '-')]['error']:.1e}" for column in columns)
        yield f"| {name} | {' | '.join(errors)} | {row['gb']:.1f} |"


def main(folder, *names):
    """Measure the rows that FOLDER does not have yet, and print the table of all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or SMALLEST:
        row = folder / f"{name}.json"
        if not row.exists():
            print(f"{name} ...", file=sys.stderr, flush=True)
            row.write_text(json.dumps(measure(name, folder), indent=2))
    found = {name: folder / f"{name}.json" for name in SMALLEST}
    print(
        "\n".join(
            table({name: json.loads(path.read_text()) for name, path in found.items() if path.exists()})
        )
    )


if __name__ == "__main__":
    parser = tool_parser("families_table", __doc__)
    parser.add_argument("folder")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SMALLEST)} (default: all)")
    args = parser.parse_args()
    if unknown := set(args.names) - set(SMALLEST):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected some of {', '.join(SMALLEST)}")
    main(args.folder, *args.names)
