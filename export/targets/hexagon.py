"""Qualcomm's Hexagon NPU (HTP): static graphs that run on the chip without fallback, in FP16 or with
QDQ of 8-bit weights.

The encoder and decoder are traced anew (`architectures.hexagon`) and quantized as the chip needs it
(`quantize.hexagon`). Where Qualcomm's compiler is installed, both are compiled for the chip, too, and
measured in its simulator.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from sam_edge import axes
from sam_edge.backends import get_backend
from sam_edge.backends.onnxruntime.isolated import open_isolated
from sam_edge.backends.onnxruntime.providers import SIMULATED_QNN
from sam_edge.errors import DeviceError, ExportError
from sam_edge.models.catalogue import Model
from sam_edge.runtime.prompts import ABSENT
from sam_edge.system.install import install_command

from ..architectures.hexagon import MAX_POINTS, FixedPointsDecoder, has_absent_points, with_last_axis_norms
from ..architectures.model import SamModel, decoder_example
from ..context.job import Job, Written, because_of_iou
from ..context.lowerings import Lowering, Tracing
from ..context.options import Option, Options
from ..graphs.onnx import DECODER_OUTPUTS, OPSET, stamp, trace
from .base import Target

PACKAGE, DISTRIBUTION = "onnxruntime_qnn", "onnxruntime-qnn"
PARTS = ("encoder", "decoder")
# The compiler ends its process at the first, and refuses the second.
_REFUSED = ("Tile", "Einsum")

NO_SIMULATOR = Option(
    "no-simulator",
    False,
    "hexagon: neither compile for the chip nor simulate it, which takes long for large models: no context "
    "binaries, and parity is measured on the CPU",
    {"action": "store_true"},
)


class HexagonTarget(Target):
    """FP16 and A16W8."""

    info = axes.TARGETS.get("hexagon")
    precisions = ("fp16", "int8")
    others = "the NPU has no FP32"
    options = (NO_SIMULATOR,)
    supports_clip = supports_contracts = supports_text_embeddings = False

    def warnings(self, options: Options) -> Iterator[str]:
        """Without the compiler there is less to measure."""
        if not NO_SIMULATOR.of(options) and not can_compile():
            yield (
                "Qualcomm's compiler is not installed, so the Hexagon variants get no context binary and "
                "their parity is measured on the CPU; on x86-64 Linux and Windows on Arm, "
                f"{install_command('qnn')} installs it"
            )

    def facts(self, model: Model) -> dict[str, Any]:
        """The label of absent points."""
        return super().facts(model) | ({"absent_label": ABSENT} if has_absent_points(model) else {})

    def measures_on(self, written: Written) -> str:
        """On the chip's simulator where it is installed: its FP16 is not a CPU's."""
        return "npu" if "context" in written.facts else "auto"

    def write(self, job: Job) -> Written:
        """See the base class."""
        written = _write_fp16(job) if job.precision == "fp16" else _write_int8(job)
        for part in PARTS:
            stamp(job.path(part), job.path(part), job.part_facts(part, opset=OPSET))
        if NO_SIMULATOR.of(job.context.options) or not can_compile():
            return written
        job.context.progress("Qualcomm's compiler")
        compiled = {}
        for part in PARTS:
            context = job.directory / f"{part}.context.onnx"
            write_context(job.path(part), context)
            compiled[part] = f"{job.directory.name}/{context.name}"
        tool = f"{DISTRIBUTION} {version(DISTRIBUTION)}"
        return Written(
            written.higher_precision_ops,
            written.remark,
            {"context": {**compiled, **SIMULATED_QNN, "tool": tool}},
        )


class _Hexagon(Lowering):
    """FP32 graphs that the compiler takes."""

    name = "hexagon"

    def for_model(self, sam: SamModel) -> Lowering:
        return self

    def write(self, sam: SamModel, part: str, path: Path, tracing: Tracing) -> None:
        (write_encoder if part == "encoder" else write_decoder)(sam, tracing.model, path)


LOWERING = _Hexagon()


def _write_fp16(job: Job) -> Written:
    from ..quantize import hexagon

    for part in PARTS:
        hexagon.to_fp16(job.context.graph(part, LOWERING), job.path(part))
    return Written([])


def _write_int8(job: Job) -> Written:
    from ..quantize import hexagon

    context, images = job.context, job.context.calibration.images
    source = context.graph("encoder", LOWERING, equalized=True)
    prompts = decoder_inputs(context.sam, context.model, images[:8])
    points = hexagon.to_int8(context.graph("decoder", LOWERING), job.path("decoder"), prompts)

    def quantize(names: Sequence[str]) -> None:
        hexagon.to_int8(source, job.path("encoder"), [{"images": image} for image in images], names)

    left, remark = job.search(source, quantize)
    exact = f"decoder, {len(points)} nodes before the first attention: FP16, as points need digits"
    return Written(["activations: 16 bits", *because_of_iou(left), exact], remark)


def write_encoder(sam: SamModel, model: Model, path: Path) -> None:
    """images (1, 3, S, S) float32 -> as `onnx.write_encoder`, in FP32."""
    images = torch.zeros(1, 3, model.image_size, model.image_size)
    encoder = with_last_axis_norms(copy.deepcopy(sam.image_encoder))
    trace(encoder, (images,), ["images"], list(model.embedding_names), None, path)
    _check(path)


def write_decoder(sam: SamModel, model: Model, path: Path) -> None:
    """As `onnx.write_decoder` for one prompt and as many points as there may be, in FP32."""
    example = decoder_example(model, 1, model.prompt.num_points or MAX_POINTS)
    # Also for a model that needs no absent points: without the sum, its attention would be fused.
    decoder = with_last_axis_norms(FixedPointsDecoder(sam))
    trace(decoder, tuple(example.values()), list(example), DECODER_OUTPUTS, None, path)
    _check(path)


def _check(path: Path) -> None:
    """Raise `ExportError` for a graph that the compiler does not take."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    refused = {node.op_type for node in nodes if node.op_type in _REFUSED or node.domain}
    if refused:
        raise ExportError(
            f"{path.name} holds {', '.join(sorted(refused))}, which Qualcomm's compiler does not take; this "
            "model cannot be exported for the NPU yet"
        )


@torch.inference_mode()
def decoder_inputs(
    sam: SamModel, model: Model, images: Sequence[NDArray[np.float32]], seed: int = 0
) -> Iterator[dict[str, Any]]:
    """A click, a box, three clicks, and a click with the mask it made, somewhere on each of `images`.

    Args:
        sam: the reference.
        model: its catalogue entry.
        images: (1, 3, S, S) float32 each.
        seed: of the places.
    """
    rng = np.random.default_rng(seed)
    side, low, count = model.coordinate_size, 4 * model.embedding_side, model.prompt.num_points or MAX_POINTS
    rest = ABSENT if has_absent_points(model) else -1
    for image in images:
        found = [tensor.numpy() for tensor in sam.encode(torch.from_numpy(image))]
        embeddings = dict(zip(model.embedding_names, found, strict=True))
        a, b, c, d, e, f = rng.uniform(0.05, 0.95, (6, 2)) * side
        prompts = [
            ([a, [0, 0]], [1, -1]),
            ([np.minimum(a, b), np.maximum(a, b)], [2, 3]),
            ([c, d, e, [0, 0]], [1, 0, 1, -1]),
            ([f, [0, 0]], [1, -1]),
        ]
        mask, has_mask = np.zeros((1, 1, low, low), np.float32), np.zeros(1, np.float32)
        for coords, labels in prompts:
            points = np.zeros((1, count, 2), np.float32)
            codes = np.full((1, count), rest, np.float32)
            points[0, : len(coords)], codes[0, : len(labels)] = coords[:count], labels[:count]
            given = {
                **embeddings,
                "point_coords": points,
                "point_labels": codes,
                "mask_input": mask,
                "has_mask_input": has_mask,
            }
            yield given
        if model.prompt.mask_prompt:
            decoded = sam.decode(*map(torch.from_numpy, _in_order(given, model, labels)))[0].numpy()
            yield {**given, "mask_input": decoded[:, -1:], "has_mask_input": np.ones(1, np.float32)}


def _in_order(given: dict[str, Any], model: Model, labels: Sequence[int]) -> list[NDArray[np.float32]]:
    """The inputs of `SamModel.decode`, without absent points, which the reference does not know."""
    values = dict(given)
    for name in ("point_coords", "point_labels"):
        values[name] = values[name][:, : model.prompt.num_points or len(labels)]
    names = [*decoder_example(model, 1, 1)]
    return [np.ascontiguousarray(values[name]) for name in names]


def can_compile() -> bool:
    """Whether Qualcomm's compiler is here."""
    return find_spec(PACKAGE) is not None and any(
        one.available and one.name.startswith("QNNExecutionProvider")
        for one in get_backend("onnxruntime").devices()
    )


def write_context(source: Path, target: Path) -> None:
    """Compile a graph into `target`, for the chip in `sam_edge.backends.onnxruntime.providers.SIMULATED_QNN`.

    Raises:
        DeviceError: the chip does not take all of it.
        CrashError: the compiler crashed.
    """
    session = open_isolated(
        source, device="QNNExecutionProvider", threads=None, allow_fallback=False, context_file=target
    )
    session.close()
    if not target.is_file():
        raise DeviceError(f"Qualcomm's compiler wrote nothing for {source.name}; try another version of it")


TARGET = HexagonTarget()
