"""The OpenVINO backend: any number of prompts, several threads, clear errors, no reports."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_edge.backends import DeviceInfo, get_backend
from sam_edge.backends.openvino import BACKEND, OpenVinoSession, no_telemetry
from sam_edge.errors import BackendError, DeviceError
from sam_edge.system.install import install_command
from tests.support import left_behind, toy

with no_telemetry():
    import openvino as ov

STATIC = {
    "point_coords": [1, 2, 2],
    "point_labels": [1, 2],
    "mask_input": [1, 1, 8, 8],
    "has_mask_input": [1],
}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The toy encoder, and the toy decoder with dynamic and with fixed shapes."""
    folder = tmp_path_factory.mktemp("graphs")
    toy.write_encoder(folder / "encoder.onnx")
    toy.write_decoder(folder / "decoder.onnx")
    core = ov.Core()
    for name in ("encoder", "decoder"):
        ov.save_model(
            core.read_model(folder / f"{name}.onnx"), folder / f"{name}.xml", compress_to_fp16=False
        )
    model = core.read_model(folder / "decoder.onnx")
    model.reshape(STATIC)
    ov.save_model(model, folder / "static.xml", compress_to_fp16=False)
    return folder


def prompts(n, k, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {
        "image_embeddings": rng.random((1, 3, toy.GRID, toy.GRID)),
        "point_coords": rng.uniform(0, toy.SIDE, (n, k, 2)),
        "point_labels": rng.integers(-1, 4, (n, k)),
        "mask_input": rng.normal(size=(1, 1, toy.GRID, toy.GRID)),
        "has_mask_input": np.array([n % 2]),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def as_npu(path):
    """A session that goes the NPU's way, on the CPU."""
    core = ov.Core()
    device = DeviceInfo("openvino", "CPU", "npu", True, "")
    return OpenVinoSession(core, core.read_model(path), device, {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.parametrize("name", ["decoder.xml", "static.xml"])
@pytest.mark.parametrize("kind", ["cpu", "npu"])
def test_any_number_of_prompts_and_points(graphs, name, kind):
    expected = get_backend("onnxruntime").open(graphs / "decoder.onnx", "cpu", None)
    session = as_npu(graphs / name) if kind == "npu" else BACKEND.open(graphs / name, "cpu", None)
    for n in (1, 2, 3):
        for k in (1, 2, 3, 4, 5):
            given = prompts(n, k, seed=n * k)
            ours, theirs = session.run(given), expected.run(given)
            assert ours.keys() == theirs.keys()
            for output, array in theirs.items():
                assert ours[output].shape == array.shape and ours[output].dtype == np.float32
                np.testing.assert_allclose(ours[output], array, atol=1e-5)


@settings(max_examples=200)
@given(st.data())
def test_any_file_works_or_is_refused(graphs, tmp_path, data):
    """Cut short or with bytes changed."""
    name = data.draw(st.sampled_from(["decoder", "static"]))
    for ending in ("xml", "bin"):
        (tmp_path / f"{name}.{ending}").write_bytes((graphs / f"{name}.{ending}").read_bytes())
    spoiled = tmp_path / f"{name}.{data.draw(st.sampled_from(['xml', 'bin']))}"
    content = bytearray(spoiled.read_bytes())
    at = data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4))
    for place in at:
        content[place] = data.draw(st.integers(0, 255))
    if not at:
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    spoiled.write_bytes(content)
    try:
        session = BACKEND.open(tmp_path / f"{name}.xml", "cpu", 1)
        session.run(prompts(1, 2))
        session.run(prompts(2, 3))
    except BackendError as error:
        assert str(error)


def test_says_how_many_nodes_it_runs(tmp_path):
    x, weights = np.zeros((1, 4, 8), np.float32), np.ones((8, 3), np.float32)
    given = ov.opset8.parameter(x.shape, np.float32, name="x")
    product = ov.opset8.matmul(given, ov.opset8.constant(weights), False, False)
    model = ov.Model([ov.opset8.result(ov.opset8.softmax(product, 2))], [given])
    ov.save_model(model, tmp_path / "x.xml", compress_to_fp16=False)
    session = BACKEND.open(tmp_path / "x.xml", "cpu", None)
    assert session.compute_placement == {"CPU": 1}
    assert session.placement["CPU"] >= 2


def test_an_npu_keeps_a_few_graphs_only(graphs):
    session = as_npu(graphs / "decoder.xml")
    for k in (*range(1, 12), 1):
        assert session.run(prompts(2, k))["low_res_masks"].shape == (2, 4, 8, 8)
    assert len(session._reshaped) == 8


def test_a_graph_that_fits_is_not_reshaped(graphs):
    session = BACKEND.open(graphs / "static.xml", "auto", 1)
    session.run(prompts(1, 2))
    assert session.device == "cpu" and not session._reshaped


def test_results_are_the_callers_own(graphs):
    session = BACKEND.open(graphs / "decoder.xml", "cpu", 1)
    first = session.run(prompts(1, 2, seed=1))["low_res_masks"]
    before = first.copy()
    session.run(prompts(1, 2, seed=2))
    np.testing.assert_array_equal(first, before)
    first[:] = 0


@pytest.mark.parametrize("name", ["decoder.xml", "static.xml"])
def test_several_threads(graphs, name):
    session = BACKEND.open(graphs / name, "cpu", 1)
    asked = [prompts(1 + i % 3, 1 + i % 4, seed=i) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(session.run, asked))
    for one, ours in zip(asked, together, strict=True):
        alone = session.run(one)
        np.testing.assert_array_equal(ours["low_res_masks"], alone["low_res_masks"])


def test_arrays_of_any_layout(graphs):
    session = BACKEND.open(graphs / "encoder.xml", "cpu", 1)
    picture = np.random.default_rng(0).random((1, toy.SIDE, toy.SIDE, 3), np.float32)
    turned = picture.transpose(0, 3, 1, 2)
    expected = session.run({"images": np.ascontiguousarray(turned)})["image_embeddings"]
    np.testing.assert_array_equal(session.run({"images": turned})["image_embeddings"], expected)


def test_inputs_that_do_not_fit(graphs):
    encoder = BACKEND.open(graphs / "encoder.xml", "cpu", 1)
    decoder = BACKEND.open(graphs / "static.xml", "cpu", 1)
    with pytest.raises(
        BackendError, match=r"images has shape \(2, 3, 64, 64\); the graph expects \(1, 3, 64, 64\)"
    ):
        encoder.run({"images": np.zeros((2, 3, 64, 64), np.float32)})
    with pytest.raises(BackendError, match=r"the inputs are image; the graph expects images"):
        encoder.run({"image": np.zeros((1, 3, 64, 64), np.float32)})
    with pytest.raises(BackendError, match="expects image_embeddings, point_coords"):
        decoder.run({})
    with pytest.raises(BackendError, match=r"point_coords .* \(any, any, 2\)"):
        decoder.run({**prompts(1, 2), "point_coords": np.zeros((1, 2, 3), np.float32)})
    with pytest.raises(BackendError, match=r"different numbers of prompts: .*point_labels \(2, 2\)"):
        decoder.run({**prompts(3, 2), "point_labels": np.zeros((2, 2), np.float32)})
    with pytest.raises(BackendError, match=r"has_mask_input has shape \(3,\); the graph expects \(1\)"):
        decoder.run({**prompts(3, 2), "has_mask_input": np.zeros(3, np.float32)})
    with pytest.raises(BackendError, match="different numbers of points"):
        decoder.run({**prompts(3, 2), "point_labels": np.zeros((3, 4), np.float32)})
    encoder.close()
    with pytest.raises(BackendError, match="closed"):
        encoder.run({"images": np.zeros((1, 3, 64, 64), np.float32)})


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "short"])
def test_a_damaged_graph(graphs, tmp_path, damage):
    path = tmp_path / "graph.xml"
    whole = (graphs / "encoder.xml").read_bytes()
    if damage != "missing":
        path.write_bytes({"empty": b"", "text": b"hello", "short": whole[: len(whole) // 2]}[damage])
    with pytest.raises(BackendError, match=r"cannot load .*graph\.xml") as caught:
        BACKEND.open(path, "cpu", None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "empty", "short"])
def test_damaged_weights(graphs, tmp_path, damage):
    (tmp_path / "decoder.xml").write_bytes((graphs / "decoder.xml").read_bytes())
    whole = (graphs / "decoder.bin").read_bytes()
    if damage != "missing":
        (tmp_path / "decoder.bin").write_bytes(b"" if damage == "empty" else whole[:-4])
    with pytest.raises(BackendError, match=r"cannot load .*decoder\.xml"):
        BACKEND.open(tmp_path / "decoder.xml", "cpu", None)


def test_devices(graphs):
    found = BACKEND.devices()
    assert {d.kind for d in found} == {"cpu", "gpu", "npu"}
    for device in found:
        assert device.backend == "openvino" and device.available != bool(device.reason)
    assert next(d for d in found if d.kind == "cpu").available
    for kind in {"gpu", "npu"} - {d.kind for d in found if d.available}:
        with pytest.raises(
            DeviceError, match=rf"OpenVINO has no {kind} on this machine; available: cpu \(CPU\).*; .*driver"
        ):
            BACKEND.open(graphs / "encoder.xml", kind, None)
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        BACKEND.open(graphs / "encoder.xml", "tpu", None)


def opened_with(monkeypatch, path, device, threads=None):
    """The device and options that a graph is compiled with, on a machine that has everything."""
    seen = []

    class Core(ov.Core):
        available_devices = ("CPU", "GPU.0", "GPU.1", "NPU")

        def compile_model(self, model, device_name, config):
            seen.append((device_name, config))
            return SimpleNamespace()

    monkeypatch.setattr(ov, "Core", Core)
    BACKEND.open(path, device, threads)
    return seen[0]


def test_nothing_is_computed_in_less_precision_than_exported(monkeypatch, graphs, tmp_path):
    path = graphs / "encoder.xml"
    name, config = opened_with(monkeypatch, path, "cpu", 3)
    assert name == "CPU"
    assert config["INFERENCE_PRECISION_HINT"] == "f32" and config["INFERENCE_NUM_THREADS"] == 3
    name, config = opened_with(monkeypatch, path, "gpu", 3)
    assert name == "GPU.0" and config["INFERENCE_PRECISION_HINT"] == "f32"
    assert "INFERENCE_NUM_THREADS" not in config
    name, config = opened_with(monkeypatch, path, "npu")
    assert name == "NPU" and "INFERENCE_PRECISION_HINT" not in config
    model = ov.Core().read_model(path)
    model.set_rt_info('{"precision": "fp16"}', "sam_edge")
    ov.save_model(model, tmp_path / "half.xml")
    _, config = opened_with(monkeypatch, tmp_path / "half.xml", "gpu")
    assert "INFERENCE_PRECISION_HINT" not in config


def test_without_openvino(monkeypatch, graphs):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=re.escape(install_command("openvino"))):
        BACKEND.open(graphs / "encoder.xml", "cpu", None)
    assert [d.available for d in BACKEND.devices()] == [False]


def test_opening_reports_to_nobody(graphs, tmp_path):
    code = f"""
import socket, sys, threading
def refuse(*_, **__):
    print("network")
    raise OSError("no network in this test")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import sam_edge
from sam_edge.backends.openvino import BACKEND
assert "openvino" not in sys.modules
from pathlib import Path
import numpy
session = BACKEND.open(Path({str(graphs / "encoder.xml")!r}), "cpu", 1)
session.run({{"images": numpy.zeros((1, 3, 64, 64), "f")}})
assert "openvino_telemetry" not in sys.modules and threading.active_count() == 1
"""
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not left_behind(tmp_path, "openvino", "telemetry", "intel")
