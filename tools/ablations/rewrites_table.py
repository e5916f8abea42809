"""Measures the effect of each exact rewrite on INT8.

    python -m tools.ablations.rewrites_table [--twin] [--json]

Each row is a quantized encoder of the embedded model (or of its hostile twin) with the same FP32 decoder,
compared with the reference on the golden data. There are three recipes: `plain` is the default of
`onnxruntime.quantization.quantize_static` (QDQ, MinMax, one scale per activation tensor) with per-channel
weights; `onnx` and `openvino` are the package's own, without nodes excluded from quantization.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, quantize_static

from sam_edge.backends import get_backend
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.errors import BundleError
from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.export.graphs.onnx import write_encoder
from sam_edge.export.pipeline import export_bundle, find_checkpoint
from sam_edge.export.quantize.calibration import packaged_calibration
from sam_edge.export.quantize.equalization import REWRITES, rewrite
from sam_edge.export.quantize.onnx_int8 import encoder_stats, quantize_encoder
from sam_edge.export.quantize.openvino_int8 import write_encoder_int8
from sam_edge.export.quantize.ranges import CalibrationReader
from sam_edge.models.catalogue import DEFAULT_MODEL
from sam_edge.runtime.opener import OpenedGraphs
from sam_edge.runtime.sam import Sam
from sam_edge.system.files import sha256_file
from sam_edge.system.output import suppress_output
from sam_edge.verify.parity import run_parity
from tools.ablations.hostile_twin import hostile_twin

COLUMNS = {"embedding_relative_error": "error", "mean_iou": "mean IoU", "min_iou": "min IoU"}
Images = Sequence[NDArray[np.float32]]


def quantize_plainly(source: Path, target: Path, calibration: Images) -> None:
    """Quantize by the defaults of ONNX Runtime: static QDQ, MinMax, per-channel weights."""
    with suppress_output():
        quantize_static(
            source,
            target,
            CalibrationReader({"images": image} for image in calibration),
            quant_format=QuantFormat.QDQ,
            calibrate_method=CalibrationMethod.MinMax,
            per_channel=True,
        )


def quantize_for_onnx_runtime(source: Path, target: Path, calibration: Images) -> None:
    """Quantize by the package's recipe for ONNX."""
    quantize_encoder(source, target, encoder_stats(source, calibration))


def quantize_for_openvino(source: Path, target: Path, calibration: Images) -> None:
    """Quantize by the package's recipe for OpenVINO, to `target` (.xml)."""
    write_encoder_int8(source, target, {}, encoder_stats(source, calibration))


# By recipe: what quantizes, the suffix of its file, and the backend that runs it.
RECIPES: dict[str, tuple[Callable[[Path, Path, Images], None], str, str]] = {
    "plain": (quantize_plainly, ".onnx", "onnxruntime"),
    "onnx": (quantize_for_onnx_runtime, ".onnx", "onnxruntime"),
    "openvino": (quantize_for_openvino, ".xml", "openvino"),
}


def combinations() -> Iterator[tuple[str, list[str]]]:
    """Labels and rewrites of the rows: none, each alone, all but each, all."""
    names = list(REWRITES)
    yield "none", []
    for name in names:
        yield f"only {name}", [name]
    for name in names:
        yield f"all but {name}", [other for other in names if other != name]
    yield "all", names


def measure(
    exported: Path,
    twin: bool,
    rows: Sequence[tuple[str, list[str]]],
    recipes: Sequence[str] = tuple(RECIPES),
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Measure each row.

    Args:
        exported: an ONNX FP32 bundle of the embedded model, whose decoder and golden data are used.
        twin: quantize the encoder of the hostile twin instead.
        rows: labels, and the rewrites to apply.
        recipes: keys of `RECIPES`.
        progress: told of each row.

    Raises:
        BundleError: `exported` was made from other weights.
    """
    bundle = open_bundle(exported)
    golden = read_golden(bundle.check_golden())
    variant = bundle.choose(("onnx",), "fp32")
    calibration = packaged_calibration(bundle.manifest.input).images
    checkpoint = find_checkpoint(DEFAULT_MODEL, None)
    if sha256_file(checkpoint) != bundle.manifest.checkpoint_sha256:
        raise BundleError(f"{exported} was not made from {checkpoint}; export it again")
    loaded = load_checkpoint(checkpoint)
    reference = build_reference(loaded)
    if twin:
        reference = hostile_twin(reference)
    decoder = get_backend("onnxruntime").open(exported / variant.decoder.path, "cpu", None)
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        encoder = Path(folder) / "encoder.onnx"
        for label, names in rows:
            progress(label)
            rewritten, _ = rewrite(reference, calibration, only=names)
            write_encoder(rewritten, loaded.model, encoder)
            row: dict[str, Any] = {"rewrites": label}
            for recipe in recipes:
                quantize, suffix, backend = RECIPES[recipe]
                int8 = Path(folder) / f"int8{suffix}"
                quantize(encoder, int8, calibration)
                session = get_backend(backend).open(int8, "cpu", None)
                sessions = {"encoder": session, "decoder": decoder}
                opened = OpenedGraphs(bundle, variant, backend, sessions)
                report = run_parity(Sam(opened), golden, "int8")
                session.close()
                row[recipe] = {key: getattr(report, key) for key in COLUMNS}
            measured.append(row)
    decoder.close()
    return measured


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.ablations.rewrites_table", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--twin", action="store_true", help="measure on the hostile twin")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "bundle"
        export_bundle(exported, find_checkpoint(DEFAULT_MODEL, None), DEFAULT_MODEL)
        rows = measure(
            exported, args.twin, list(combinations()), progress=lambda row: print(row, file=sys.stderr)
        )
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    columns = [f"{recipe}: {name}" for recipe in RECIPES for name in COLUMNS.values()]
    print("| rewrites |", " | ".join(columns), "|")
    print("|---|" + "---:|" * len(columns))
    for row in rows:
        values = [f"{value:.3f}" for recipe in RECIPES for value in row[recipe].values()]
        print(f"| {row['rewrites']} |", " | ".join(values), "|")
    return 0


if __name__ == "__main__":
    sys.exit(main())
