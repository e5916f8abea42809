"""How long an encoder's operators take, and how long they would at least on this machine: its roofline.

    python -m sam_edge.benchmarks.roofline BUNDLE [--variant onnx-fp32] [--threads 2]

An operator can be no faster than its arithmetic at the rate of the machine's matrix products, nor than its
tensors at the rate of copying arrays of their size, in the cache or beyond (Williams et al., "Roofline",
CACM 2009). Times are ONNX Runtime's own, medians of a profile; arithmetic is counted in products and
convolutions. Where the products' share of the sum of the bounds is below a target, no kernels can reach it:
only fewer operators.

OpenVINO says no shapes of what it fused: of its variants there are times and no bounds.
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

from sam_edge.backends.onnxruntime import session_options
from sam_edge.backends.openvino import configuration
from sam_edge.bundle import open_bundle
from sam_edge.errors import SamEdgeError

from .measure import MATMUL_SIDE, run_child

PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "Conv", "FusedConv")
RENAMED, PARTS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten"), ("Slice", "Split", "Gather")
# Megabytes of arrays whose copying is measured.
SIZES = (1, 4, 16, 64, 256)
_BYTES = {"float": 4, "int32": 4, "int64": 8, "bool": 1, "uint8": 1, "int8": 1}


@dataclass
class Kind:
    """All operators of a kind, together.

    Attributes:
        count: how many.
        milliseconds: measured.
        gflop: of products and convolutions, two a multiply-accumulate.
        megabytes: of what they read and write, but for weights that were packed in loading.
        bound: the milliseconds that they take at least.
    """

    count: int = 0
    milliseconds: float = 0.0
    gflop: float = 0.0
    megabytes: float = 0.0
    bound: float = 0.0


def profile(path: Path, threads: int, runs: int) -> dict[str, list[dict[str, Any]]]:
    """ONNX Runtime's events of each operator of the encoder `path`, one a run, but for the first two runs."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(onnxruntime, threads)
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        image = np.random.default_rng(0).normal(size=given.shape).astype(np.float32)
        for _ in range(runs + 2):
            session.run(None, {given.name: image})
        events = json.loads(Path(session.end_profiling()).read_text())
    found = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["name"]].append(event)
    return {name: of_one[2:] for name, of_one in found.items()}


def openvino_profile(path: Path, threads: int, runs: int) -> dict[str, Kind]:
    """OpenVINO's operators of the encoder `path` by their kind, as it names them: how many, milliseconds."""
    import openvino

    config = {**configuration("cpu", threads, "fp32"), "PERF_COUNT": True}
    compiled = openvino.Core().compile_model(path, "CPU", config)
    request = compiled.create_infer_request()
    image = np.random.default_rng(0).normal(size=tuple(compiled.inputs[0].shape)).astype(np.float32)
    times, names = defaultdict(list), {}
    for run in range(runs + 2):
        request.infer({0: image})
        for one in request.get_profiling_info() if run >= 2 else ():
            if one.status == openvino.ProfilingInfo.Status.EXECUTED:
                times[one.node_name].append(1e3 * one.real_time.total_seconds())
                names[one.node_name] = one.node_type
    found: dict[str, Kind] = defaultdict(Kind)
    for name, of_one in times.items():
        found[names[name]].count += 1
        found[names[name]].milliseconds += median(of_one)
    return dict(sorted(found.items(), key=lambda item: -item[1].milliseconds))


def openvino_markdown(found: dict[str, Kind], gflop: float, gflops: float) -> str:
    """The table, and the share of the matrix products' rate that was reached."""
    lines = ["| operator | count | ms |", "|---|---:|---:|"]
    lines += [f"| {name} | {one.count} | {one.milliseconds:.1f} |" for name, one in found.items()]
    total = sum(one.milliseconds for one in found.values())
    lines += [
        f"| all | {sum(one.count for one in found.values())} | {total:.1f} |",
        "",
        f"Matrix products: {gflops:.0f} GFLOP/s. Of these, {1e3 * gflop / gflops / total:.2f} are reached by "
        f"{gflop:.1f} GFLOP.",
    ]
    return "\n".join(lines)


def work(arguments: dict[str, Any]) -> tuple[float, float]:
    """What an operator computes and moves: GFLOP, of products and convolutions, and megabytes."""
    shapes = [
        [(_BYTES.get(kind, 4), shape) for one in arguments[key] for kind, shape in one.items()]
        for key in ("input_type_shape", "output_type_shape")
    ]
    inputs, outputs = shapes
    name = arguments["op_name"]
    # Of what they read, parts read only what they make.
    moved = [] if name in RENAMED else outputs * 2 if name in PARTS else inputs + outputs
    megabytes = sum(size * float(np.prod(shape)) for size, shape in moved) / 1e6
    if name not in PRODUCTS:
        return 0.0, megabytes
    made, factor = np.prod(outputs[0][1]), inputs[0][1]
    weights = inputs[1][1] if len(inputs) > 1 else ()
    if "Conv" in name:
        return 2e-9 * float(made * np.prod(weights[1:])), megabytes
    # Weights that were packed when the graph was loaded are not among the inputs any more.
    if len(weights) < 2:
        return 2e-9 * float(made * factor[-1]), megabytes
    # Either side may be transposed: what is summed over is in both, and not in the product.
    depth = np.sqrt(np.prod(factor[-2:]) * np.prod(weights[-2:]) / np.prod(outputs[0][1][-2:]))
    return 2e-9 * float(made * depth), megabytes


def copying(threads: int) -> dict[int, float]:
    """Megabytes of `SIZES` -> gigabytes a second that `threads` read and write when each copies such arrays,
    all of that size together; the best of some turns."""
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


def kinds(events: dict[str, list[dict[str, Any]]], gflops: float, rates: dict[int, float]) -> dict[str, Kind]:
    """The operators by their kind, those that take longest first."""
    found: dict[str, Kind] = defaultdict(Kind)
    for of_one in events.values():
        arguments = of_one[0]["args"]
        gflop, megabytes = work(arguments)
        rate = rates[min(rates, key=lambda size: abs(np.log(size / max(megabytes, 0.1))))]
        kind = found[arguments["op_name"]]
        kind.count += 1
        kind.milliseconds += median(event["dur"] for event in of_one) / 1e3
        kind.gflop += gflop
        kind.megabytes += megabytes
        kind.bound += max(1e3 * gflop / gflops, megabytes / rate)
    return dict(sorted(found.items(), key=lambda item: -item[1].milliseconds))


def markdown(found: dict[str, Kind], gflops: float, rates: dict[int, float]) -> str:
    """The table, and the share of the matrix products' rate that was reached and that can be."""
    lines = ["| operator | count | ms | GFLOP | MB | ms at least |", "|---|---:|---:|---:|---:|---:|"]
    for name, one in found.items():
        lines.append(
            f"| {name} | {one.count} | {one.milliseconds:.1f} | {one.gflop:.2f} | {one.megabytes:.0f} "
            f"| {one.bound:.1f} |"
        )
    total = {
        field: sum(getattr(one, field) for one in found.values())
        for field in ("count", "milliseconds", "gflop", "megabytes", "bound")
    }
    lines.append(
        "| all | {count} | {milliseconds:.1f} | {gflop:.2f} | {megabytes:.0f} | {bound:.1f} |".format(**total)
    )
    least = 1e3 * total["gflop"] / gflops
    copied = ", ".join(f"{rate:.0f} of {size} MB" for size, rate in rates.items())
    reached, bound = least / total["milliseconds"], least / total["bound"]
    lines += [
        "",
        f"Matrix products: {gflops:.0f} GFLOP/s; copying, GB/s: {copied}. Of the former, {reached:.2f} "
        f"are reached, and {bound:.2f} at most with these operators.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0, 1 where something cannot be measured, 2 where the input is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m sam_edge.benchmarks.roofline", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--variant", default="onnx-fp32", help="one in FP32 (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args(argv)
    try:
        if min(args.threads, args.runs) < 1:
            raise SamEdgeError("--threads and --runs are 1 or more")
        bundle = open_bundle(args.bundle)
        variant = bundle.variant(args.variant)
        if variant["format"] not in ("onnx", "openvino") or variant["precision"] != "fp32":
            raise SamEdgeError(
                f"{args.variant} is neither ONNX nor OpenVINO in FP32, whose operators are counted here"
            )
        task = {"work": "matmul", "side": MATMUL_SIDE, "seconds": 2.0, "threads": args.threads}
        gflops = median(run_child(task)["gflops"])
        path = bundle.path / variant["encoder"]["path"]
        if variant["format"] == "openvino":
            gmacs = bundle.manifest.model.get("encoder_gmacs")
            if gmacs is None:
                raise SamEdgeError(f"{bundle.path} does not say how many GMACs its encoder has")
            found = openvino_profile(path, args.threads, args.runs)
            print(openvino_markdown(found, 2 * gmacs, gflops))
        else:
            rates = copying(args.threads)
            events = profile(path, args.threads, args.runs)
            print(markdown(kinds(events, gflops, rates), gflops, rates))
    except SamEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
