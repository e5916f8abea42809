"""checkpoint -> reference -> two graphs -> parity -> bundle: the whole export, in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sam_edge
from sam_edge.bundle import Bundle
from sam_edge.errors import CheckpointError, ExportError, ParityError, SamEdgeError
from sam_edge.files import sha256_file
from sam_edge.golden import write_golden
from sam_edge.manifest import SCHEMA_VERSION, Manifest, model_facts, write_manifest
from sam_edge.models.catalogue import CATALOGUE, HERE, Model
from sam_edge.parity import run_parity
from sam_edge.sam import load_variant

from . import onnx
from .checkpoint import Loaded, build_reference, load_checkpoint
from .golden import at_median, make_golden
from .publish import staged

FORMATS = ("onnx",)
PRECISIONS = ("fp32",)
TOOLS = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "numpy")


class Progress:
    """What an export tells its caller; the default says nothing."""

    def begin(self, step: str) -> None:
        """A step starts."""

    def end(self, step: str, seconds: float, detail: str) -> None:
        """A step is done."""


@contextmanager
def _step(progress: Progress, name: str) -> Iterator[list[str]]:
    progress.begin(name)
    start = time.perf_counter()
    detail: list[str] = []
    yield detail
    progress.end(name, time.perf_counter() - start, ", ".join(detail))


def find_checkpoint(name: str, checkpoint: Path | None) -> Path:
    """The checkpoint given, or the embedded one of `name`.

    Raises:
        CheckpointError: the model's weights are not embedded and none were given.
    """
    if checkpoint is not None:
        return checkpoint
    entry = CATALOGUE[name].checkpoint
    if entry.source == "embedded":
        return HERE / entry.file
    raise CheckpointError(
        f"{name} needs its checkpoint; get {entry.file} from {entry.source} and give it as --checkpoint FILE"
    )


def export_bundle(
    out: Path,
    checkpoint: Path,
    name: str | None = None,
    min_iou: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Export `checkpoint` to a bundle at `out`, in ONNX FP32; returns the manifest.

    Args:
        out: the bundle's directory; an old bundle there is replaced at the end.
        checkpoint: .pth or .safetensors.
        name: insist on this model of the catalogue.
        min_iou: replaces the parity gate on the mean IoU.
        progress: told of each step.

    Raises:
        CheckpointError, OutputError: nothing was started.
        ExportError, ParityError: nothing was published.
    """
    progress = progress or Progress()
    with staged(out) as stage:
        with _step(progress, "read checkpoint") as detail:
            loaded = load_checkpoint(checkpoint, name)
            sam = build_reference(loaded)
            detail.append(f"{loaded.model.name}, {loaded.layout} layout")
        data = _describe(loaded, checkpoint)
        facts = {**model_facts(data), "format": "onnx", "precision": "fp32", "opset": onnx.OPSET}
        variant_dir = stage / "onnx-fp32"
        variant_dir.mkdir()
        for part, write in (("encoder", onnx.write_encoder), ("decoder", onnx.write_decoder)):
            with _step(progress, f"onnx-fp32 {part}") as detail:
                path = variant_dir / f"{part}.onnx"
                try:
                    write(sam, loaded.model, path, {**facts, "graph": part})
                except (SamEdgeError, OSError):
                    raise
                except Exception as error:
                    raise ExportError(f"exporting the {part} to ONNX failed: {error}") from error
                detail.append(f"{path.stat().st_size / 1e6:.1f} MB")
        with _step(progress, "golden data from the reference") as detail:
            golden = make_golden(sam, loaded.model, progress.begin)
            write_golden(stage / "golden.npz", golden)
            detail.append(f"{len(golden.prompts)} prompts on {len(golden.images)} images")
            if at_median(golden, loaded.model):
                detail.append("untrained? masks are empty or full, so compared at the median logit")
        del sam
        data["golden"] = _file(stage, stage / "golden.npz")
        data["variants"] = [_variant(stage, variant_dir)]
        with _step(progress, "parity") as detail:
            variant = data["variants"][0]
            # The staged bundle, through the runtime that users run.
            with load_variant(Bundle(stage, Manifest(data)), variant) as exported:
                parity = run_parity(exported, golden, "fp32", min_iou).to_dict()
            variant["parity"] = parity
            detail.append(f"mean IoU {parity['mean_iou']:.5f}, min {parity['min_iou']:.5f}")
        if not parity["passed"]:
            raise ParityError(
                f"onnx-fp32 does not make the reference's masks: mean IoU {parity['mean_iou']:.4f}, "
                f"minimum {parity['min_iou']:.4f}; the gate is {parity['gate']['mean_iou']} and "
                f"{parity['gate']['min_iou']} (--min-iou changes it); nothing was published"
            )
        write_manifest(stage, data)
    return data


def _describe(loaded: Loaded, checkpoint: Path) -> dict[str, Any]:
    model: Model = loaded.model
    side = model.image_size
    rules = model.preprocess
    return {
        "schema_version": SCHEMA_VERSION,
        "sam_edge_version": sam_edge.__version__,
        "model": {
            "family": model.family,
            "name": model.name,
            "parameters": model.parameters,
            "checkpoint": {
                "file": checkpoint.name,
                "sha256": sha256_file(checkpoint),
                "bytes": checkpoint.stat().st_size,
                "layout": loaded.layout,
            },
            "license": model.checkpoint.license,
        },
        "input": {
            "size": [side, side],
            "resize": rules.resize,
            "color_order": "RGB",
            "mean": list(rules.mean),
            "std": list(rules.std),
            "pad_value": rules.pad_value,
        },
        "prompt": {
            "coordinate_space": model.prompt.coordinate_space,
            "labels": {
                "background": 0,
                "foreground": 1,
                "box_top_left": 2,
                "box_bottom_right": 3,
                "padding": -1,
            },
            "padding_point": model.prompt.padding_point,
        },
        "mask": {
            "threshold": model.mask_threshold,
            "count": 4,
            "size": [4 * model.embedding_side, 4 * model.embedding_side],
        },
    }


def _file(stage: Path, path: Path) -> dict[str, Any]:
    return {
        "path": path.relative_to(stage).as_posix(),
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
    }


def _variant(stage: Path, directory: Path) -> dict[str, Any]:
    def graph(part: str) -> dict[str, Any]:
        path = directory / f"{part}.onnx"
        inputs, outputs = onnx.tensors(path)
        return {"path": path.relative_to(stage).as_posix(), "inputs": inputs, "outputs": outputs}

    return {
        "id": "onnx-fp32",
        "format": "onnx",
        "precision": "fp32",
        "opset": onnx.OPSET,
        "deployment_target": None,
        "files": [_file(stage, path) for path in sorted(directory.iterdir())],
        "encoder": graph("encoder"),
        "decoder": graph("decoder"),
        "higher_precision_ops": [],
        "calibration_sha256": None,
        "tools": {tool: version(tool) for tool in TOOLS},
    }
