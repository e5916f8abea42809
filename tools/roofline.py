"""Prints the roofline of an encoder: the time of its operators, and the least that they need on this machine.

    python -m tools.roofline BUNDLE [--variant onnx-fp32] [--threads 2]

An operator can be no faster than its arithmetic at the rate of the machine's matrix products, nor than moving
its tensors at the rate of copying arrays of their size, in the cache or outside (Williams et al., "Roofline",
CACM 2009). Times are medians of the runtime's own profile. Arithmetic is that of matmuls, convolutions and
attention; operators that the runtime fuses into them move no data, and count as zero. Where the bounds allow
a smaller share of the rate of matrix products than a target, faster kernels cannot reach it: only fewer
operators can.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from sam_edge.backends.onnxruntime.session import session_options
from sam_edge.backends.openvino import configuration
from sam_edge.benchmarks.measure.rounds import matmul_gflops
from sam_edge.bundle.bundle import open_bundle
from sam_edge.errors import SamEdgeError
from tools.shared.commands import check_positive, exit_code

PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "Conv", "FusedConv", "FullyConnected", "Convolution")
RENAMED, PARTS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten"), ("Slice", "StridedSlice", "Split", "Gather")
# Runs before those that count.
WARMUP = 2
# Megabytes of arrays whose copying is measured.
SIZES = (1, 4, 16, 64, 256)
Tensor = tuple[str, tuple[int, ...]]  # dtype, shape
_BYTES = {"float": 4, "int32": 4, "int64": 8, "bool": 1, "uint8": 1, "int8": 1}


@dataclass(frozen=True)
class Operator:
    """An operator of a graph, as a runtime ran it.

    Attributes:
        kind: the runtime's name for it.
        milliseconds: measured.
        gflop: of matmuls and convolutions, two for a multiply-accumulate.
        megabytes: that it reads and writes, without weights that were packed when the graph was loaded.
    """

    kind: str
    milliseconds: float
    gflop: float
    megabytes: float


@dataclass(frozen=True)
class Rates:
    """The highest rates of the machine.

    Attributes:
        gflops: of matrix products.
        copying: megabytes of an array -> gigabytes a second.
    """

    gflops: float
    copying: dict[int, float]

    def bound(self, one: Operator) -> float:
        """The least milliseconds that the operator needs."""
        nearest = min(self.copying, key=lambda size: abs(np.log(size / max(one.megabytes, 0.1))))
        least = max(1e3 * one.gflop / self.gflops, one.megabytes / self.copying[nearest])
        # Some only rename memory, and copy nothing.
        return min(least, one.milliseconds)


def onnx_operators(path: Path, threads: int, runs: int) -> list[Operator]:
    """The operators of the encoder `path`, as ONNX Runtime runs it."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(onnxruntime, threads)
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        image = np.random.default_rng(0).normal(size=given.shape).astype(np.float32)
        for _ in range(runs + WARMUP):
            session.run(None, {given.name: image})
        events = json.loads(Path(session.end_profiling()).read_text())
    times, arguments = defaultdict(list), {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"]].append(event["dur"] / 1e3)
            arguments[event["name"]] = event["args"]
    return [
        Operator(arguments[name]["op_name"], median(of_one[WARMUP:]), *work(arguments[name]))
        for name, of_one in times.items()
    ]


def openvino_operators(path: Path, threads: int, runs: int) -> list[Operator]:
    """The operators of the encoder `path`, as OpenVINO fuses and runs it."""
    import openvino

    model = openvino.Core().read_model(path)
    # Attention is fused with other operators, which then list its name.
    attention = {}
    for node in model.get_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            queries, keys = (tuple(node.input(port).get_shape()) for port in (0, 1))
            attention[node.get_friendly_name()] = 4e-9 * float(np.prod(queries)) * keys[-2]
    config = {**configuration("cpu", threads, "fp32"), "PERF_COUNT": True}
    compiled = openvino.Core().compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    image = np.random.default_rng(0).normal(size=tuple(compiled.inputs[0].shape)).astype(np.float32)
    times = defaultdict(list)
    for run in range(runs + WARMUP):
        request.infer({0: image})
        for one in request.get_profiling_info() if run >= WARMUP else ():
            if one.status == openvino.ProfilingInfo.Status.EXECUTED:
                times[one.node_name].append(1e3 * one.real_time.total_seconds())
    found = []
    for node in compiled.get_runtime_model().get_ops():
        if node.get_friendly_name() not in times:
            continue
        facts = node.get_rt_info()
        kind, parts = (facts[key].astype(str) for key in ("layerType", "originalLayersNames"))
        shapes = [
            [("float", tuple(one.get_partial_shape().to_shape())) for one in ports]
            for ports in (node.inputs(), node.outputs())
        ]
        gflop, megabytes = computed_and_moved(kind, *shapes)
        gflop += sum(attention.get(part, 0.0) for part in parts.split(","))
        found.append(Operator(kind, median(times[node.get_friendly_name()]), gflop, megabytes))
    return found


def work(arguments: dict[str, Any]) -> tuple[float, float]:
    """GFLOP and megabytes of an operator, from its event in a profile of ONNX Runtime."""
    inputs, outputs = (
        [(kind, tuple(shape)) for one in arguments[key] for kind, shape in one.items()]
        for key in ("input_type_shape", "output_type_shape")
    )
    return computed_and_moved(arguments["op_name"], inputs, outputs)


def computed_and_moved(kind: str, inputs: list[Tensor], outputs: list[Tensor]) -> tuple[float, float]:
    """GFLOP (of matmuls and convolutions) and megabytes of an operator with these tensors."""
    # Operators that take parts read no more than they write.
    moved = [] if kind in RENAMED else outputs * 2 if kind in PARTS else inputs + outputs
    megabytes = sum(_BYTES.get(dtype, 4) * float(np.prod(shape)) for dtype, shape in moved) / 1e6
    if kind not in PRODUCTS:
        return 0.0, megabytes
    made, factor = outputs[0][1], inputs[0][1]
    weights = inputs[1][1] if len(inputs) > 1 else ()
    if "Conv" in kind:
        depth = float(np.prod(weights[-3:]))
    # Weights that were packed when the graph was loaded are not among the inputs any more.
    elif len(weights) < 2:
        depth = float(factor[-1])
    else:
        # Either side may be transposed: what is summed over is in both, and not in the product.
        depth = float(np.sqrt(np.prod(factor[-2:]) * np.prod(weights[-2:]) / np.prod(made[-2:])))
    return 2e-9 * float(np.prod(made)) * depth, megabytes


def copying(threads: int) -> dict[int, float]:
    """Measure the rate of copying: megabytes of `SIZES` -> gigabytes a second, read and written.

    The threads share an array of that size; the best of several runs counts.
    """
    return {size: max(_copied(size, threads) for _ in range(5)) for size in SIZES}


def _copied(megabytes: float, threads: int) -> float:
    length = int(megabytes * 1e6 / 8 / threads)
    pairs = [(np.ones(length, np.float32), np.zeros(length, np.float32)) for _ in range(threads)]
    turns = max(1, int(500 / megabytes))

    def copy(source: Any, target: Any) -> None:
        for _ in range(turns):
            np.copyto(target, source)

    workers = [threading.Thread(target=copy, args=pair) for pair in pairs]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return turns * megabytes / 1e3 / (time.perf_counter() - start)


def markdown(operators: Sequence[Operator], rates: Rates) -> str:
    """Render the kinds of operators, slowest first, and the share of the rate of matrix products."""
    kinds = defaultdict(list)
    for one in operators:
        kinds[one.kind].append(one)
    rows = sorted(kinds.items(), key=lambda item: -sum(one.milliseconds for one in item[1]))
    lines = ["| operator | count | ms | GFLOP | MB | least ms |", "|---|---:|---:|---:|---:|---:|"]
    for name, of_one in [*rows, ("all", operators)]:
        figures = [(one.milliseconds, one.gflop, one.megabytes, rates.bound(one)) for one in of_one]
        milliseconds, gflop, megabytes, bound = np.sum(figures, axis=0)
        lines.append(
            f"| {name} | {len(of_one)} | {milliseconds:.1f} | {gflop:.2f} | {megabytes:.0f} | {bound:.1f} |"
        )
    # The figures of "all", the last row.
    least = 1e3 * gflop / rates.gflops
    copied = ", ".join(f"{rate:.0f} of {size} MB" for size, rate in rates.copying.items())
    return "\n".join(
        [
            *lines,
            "",
            f"Matrix products: {rates.gflops:.0f} GFLOP/s; copying, GB/s: {copied}. The encoder reaches a "
            f"share of {least / milliseconds:.2f} of the first, and could reach at most {least / bound:.2f} "
            "with these operators.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 0 done, 1 the work failed, 2 the input was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.roofline", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--variant", default="onnx-fp32", help="one in FP32 (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args(argv)
    return exit_code(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    check_positive(args, "threads", "runs")
    bundle = open_bundle(args.bundle)
    variant = bundle.variant(args.variant)
    if variant.format not in ("onnx", "openvino") or variant.precision != "fp32":
        raise SamEdgeError(f"{args.variant} is not supported; expected a variant of ONNX or OpenVINO in FP32")
    gflops, copied = median(matmul_gflops(args.threads, seconds=2.0)), copying(args.threads)
    path = bundle.path / variant.encoder.path
    operators = openvino_operators if variant.format == "openvino" else onnx_operators
    print(markdown(operators(path, args.threads, args.runs), Rates(gflops, copied)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
