"""Variants for Qualcomm's Hexagon NPU, run in Qualcomm's simulator."""

import json
import platform
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from sam_edge import load
from sam_edge.cli import main
from sam_edge.export.architectures import hexagon as lowering
from sam_edge.export.architectures.layers import LayerNorm2d
from sam_edge.export.architectures.model import build_model, decoder_example
from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.export.graphs import onnx
from sam_edge.export.optimize.fuse import fuse
from sam_edge.export.targets import hexagon
from sam_edge.models.catalogue import CATALOGUE, HERE

simulated = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="Qualcomm has its simulator for x86-64 Linux only",
)
TINY = CATALOGUE["sam_edge_tiny"]


@pytest.fixture(scope="module")
def sam():
    return fuse(build_reference(load_checkpoint(HERE / TINY.checkpoint.file)))


def prompt(coords, labels, count):
    """The first inputs of a decoder of `count` points."""
    points, codes = np.zeros((1, count, 2), np.float32), np.full((1, count), -2, np.float32)
    points[0, : len(coords)], codes[0, : len(labels)] = coords, labels
    return torch.from_numpy(points), torch.from_numpy(codes)


# A click, a box, one with a click, and as many points as there may be.
PROMPTS = [
    ([[100, 120], [0, 0]], [1, -1]),
    ([[40, 40], [200, 250]], [2, 3]),
    ([[90, 99], [40, 40], [200, 250]], [0, 2, 3]),
    ([[15 * i, 300 - 14 * i] for i in range(16)], [i % 2 for i in range(16)]),
]


@torch.inference_mode()
@pytest.mark.parametrize(("coords", "labels"), PROMPTS)
def test_absent_points_change_nothing(sam, coords, labels):
    decoder = lowering.FixedPointsDecoder(sam).eval()
    embedding = torch.randn(1, 128, 20, 20, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 80, 80), torch.zeros(1)
    given = torch.tensor([coords], dtype=torch.float32), torch.tensor([labels], dtype=torch.float32)
    expected = sam.decode(embedding, *given, *mask)
    found = decoder(embedding, *prompt(coords, labels, lowering.MAX_POINTS), *mask)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    if len(coords) < lowering.MAX_POINTS:
        # Padding points, which the model knows, are something else.
        points, codes = prompt(coords, labels, lowering.MAX_POINTS)
        padded = sam.decode(embedding, points, codes.clamp_min(-1), *mask)
        assert (padded[0] - expected[0]).abs().max() > 0.01


def test_the_norm_over_the_last_axis_is_the_same_function():
    norm = LayerNorm2d(12)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 12, 5, 7) * 30
    torch.testing.assert_close(lowering.LastAxisNorm(norm)(x), norm(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mobile_sam", "sam2.1_hiera_tiny", "sam_hq_vit_tiny", "efficient_sam_vitt"])
def test_decoders_of_other_families(tmp_path, name):
    """Static, without operators that the compiler refuses, and the reference's masks."""
    import onnxruntime
    from onnx import load as read

    torch.manual_seed(0)
    # The operators do not depend on the size of images.
    model = replace(CATALOGUE[name], image_size=256)
    sam = build_model(model).eval()
    hexagon.write_decoder(sam, model, tmp_path / "decoder.onnx")
    graph = read(tmp_path / "decoder.onnx").graph
    assert not {"Tile", "Expand", "Einsum", "Attention"} & {node.op_type for node in graph.node}
    assert not {node.domain for node in graph.node} - {""}
    inputs, _ = onnx.tensors(tmp_path / "decoder.onnx")
    assert all(isinstance(axis, int) for tensor in inputs for axis in tensor["shape"])
    side = model.image_size
    session = onnxruntime.InferenceSession(tmp_path / "decoder.onnx", providers=["CPUExecutionProvider"])
    few = list(hexagon.decoder_inputs(sam, model, [np.zeros((1, 3, side, side), np.float32)]))
    for given in (few[0], few[-1]):
        labels = given["point_labels"]
        count = int((labels != -2).sum())
        values = {k: torch.from_numpy(v) for k, v in given.items()}
        values["point_coords"] = values["point_coords"][:, :count]
        values["point_labels"] = values["point_labels"][:, :count]
        with torch.inference_mode():
            # Further embeddings come last.
            expected = sam.decode(*(values[name] for name in decoder_example(model, 1, 1)))
        known = {tensor.name for tensor in session.get_inputs()}
        found = session.run(None, {k: v for k, v in given.items() if k in known})
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--precision", "fp32"], "the NPU has no FP32"),
        (["--format", "openvino"], "makes ONNX graphs"),
        (["--format", "onnx,openvino"], "--target any,hexagon"),
        (["--compat", "segment-anything"], "not supported by --target hexagon"),
        (["--text-embeddings"], "not supported by --target hexagon"),
        (["--clip", "folder"], "not supported by --target hexagon"),
        (["--target", "any,vnni,hexagon"], "both instruction sets of CPUs"),
        (["--target", "snapdragon"], "unknown target 'snapdragon'"),
    ],
)
def test_what_it_does_not_have(capsys, tmp_path, arguments, says):
    assert main(["export", "--target", "hexagon", *arguments, "--out", str(tmp_path / "b")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.fixture(scope="module")
def without_compiler(tmp_path_factory):
    """FP16, as exported where Qualcomm's compiler is not, beside an ordinary variant."""
    out = tmp_path_factory.mktemp("hexagon") / "bundle"
    arguments = ["--target", "any,hexagon", "--precision", "fp16", "--out", str(out)]
    assert main(["export", *arguments]) == 0
    return out


def manifest(bundle):
    return json.loads((bundle / "manifest.json").read_text())


def test_without_the_compiler(without_compiler, capsys):
    ordinary, npu = manifest(without_compiler)["variants"]
    assert [one["id"] for one in (ordinary, npu)] == ["onnx-fp16", "onnx-fp16-hexagon"]
    assert "accelerator" not in ordinary and npu["accelerator"] == "hexagon"
    assert npu["absent_label"] == -2 and "context" not in npu
    assert npu["parity"]["device"] == "cpu" and npu["parity"]["mean_iou"] > 0.99
    capsys.readouterr()
    assert main(["verify", str(without_compiler)]) == 0
    assert "onnx-fp16-hexagon cpu" in capsys.readouterr().out
    assert main(["verify", str(without_compiler), "--device", "npu"]) == 2
    assert "onnxruntime-qnn" in capsys.readouterr().err


def test_the_ordinary_variant_is_taken_on_a_cpu(without_compiler):
    with load(without_compiler) as sam:
        assert sam.variant.id == "onnx-fp16"


def python(code, *arguments):
    """A process of its own, in which the simulator may be registered."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


DECODE = """
import sys
from pathlib import Path
import numpy as np
from sam_edge.backends import get_backend
from sam_edge.export.targets.hexagon import write_context
from sam_edge.runtime.prompts import fill_up

path, context = map(Path, sys.argv[1:])
write_context(path, context)
rng = np.random.default_rng(0)
points = np.array([[[100, 120], [0, 0]]], np.float32), np.array([[1, -1]], np.float32)
coords, labels = fill_up(*points, 16)
inputs = {
    "image_embeddings": rng.standard_normal((1, 128, 20, 20)).astype(np.float32),
    "point_coords": coords, "point_labels": labels,
    "mask_input": np.zeros((1, 1, 80, 80), np.float32), "has_mask_input": np.zeros(1, np.float32),
}
backend = get_backend("onnxruntime")
cpu = backend.open(path, "cpu", None).run(inputs)
npu, compiled = (backend.open_without_fallback(one, "npu", None) for one in (path, context))
assert npu.device == compiled.device == "npu-simulated"
assert list(npu.placement) == list(compiled.placement) == ["QNNExecutionProvider"], npu.placement
assert compiled.placement["QNNExecutionProvider"] == 1
found, again = npu.run(inputs), compiled.run(inputs)
for name in found:
    np.testing.assert_array_equal(found[name], again[name])
    assert np.linalg.norm(found[name] - cpu[name]) < 0.02 * np.linalg.norm(cpu[name]), name
npu.close(), compiled.close()
"""


def test_no_simulator_is_for_hexagon(capsys, tmp_path):
    assert main(["export", "--no-simulator", "--out", str(tmp_path / "b")]) == 2
    assert "--no-simulator needs --target hexagon" in capsys.readouterr().err


@simulated
def test_the_decoder_runs_whole_on_the_simulated_chip(without_compiler, tmp_path):
    """And so does what the phone gets, to the bit."""
    python(DECODE, without_compiler / "onnx-fp16-hexagon" / "decoder.onnx", tmp_path / "context.onnx")


@simulated
def test_what_the_chip_does_not_take_whole_is_refused(tmp_path):
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy")
    nodes = [helper.make_node("Relu", ["x"], ["z"]), helper.make_node("Det", ["z"], ["d"])]
    nodes.append(helper.make_node("Add", ["z", "d"], ["y"]))
    model = helper.make_model(
        helper.make_graph(nodes, "part", [x], [y]), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    save(model, tmp_path / "part.onnx")
    code = """
import sys
from pathlib import Path
from sam_edge import DeviceError
from sam_edge.backends import get_backend

try:
    get_backend("onnxruntime").open_without_fallback(Path(sys.argv[1]), "npu", None)
except DeviceError as error:
    print(error)
"""
    assert "cannot run all of" in python(code, tmp_path / "part.onnx")


@simulated
@pytest.mark.slow
def test_both_precisions_on_the_simulated_chip(tmp_path):
    out = tmp_path / "bundle"
    command = [sys.executable, "-m", "sam_edge"]
    subprocess.run([*command, "export", "--target", "hexagon", "--out", str(out)], check=True)
    verify = [*command, "verify", str(out), "--device", "npu", "--json"]
    done = subprocess.run(verify, capture_output=True, text=True, check=True)
    found = {row["id"]: row for row in json.loads(done.stdout)["variants"]}
    assert {row["device"] for row in found.values()} == {"npu-simulated"}
    assert found["onnx-fp16-hexagon"]["mean_iou"] >= 0.99
    assert found["onnx-int8-hexagon"]["mean_iou"] >= 0.95
    for variant in manifest(out)["variants"]:
        assert variant["parity"]["device"] == "npu-simulated"
        files = {file["path"] for file in variant["files"]}
        assert {variant["context"]["encoder"], variant["context"]["decoder"]} <= files
    int8 = out / "onnx-int8-hexagon"
    sizes = [(int8 / f"{part}.onnx").stat().st_size for part in ("encoder", "decoder")]
    assert sum(sizes) < 0.35 * 13.4e6
