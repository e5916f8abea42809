"""ONNX Runtime's execution providers, with stand-ins for those that this machine lacks."""

import sys
import types
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest

from sam_edge import DeviceError, load
from sam_edge.backends import get_backend
from sam_edge.backends.onnxruntime import providers
from sam_edge.backends.onnxruntime.session import open_in_process
from tests.support import toy

BACKEND = get_backend("onnxruntime")
REAL = onnxruntime.InferenceSession


class FakeSession:
    """A session of the CPU that claims to be of the providers that were asked for."""

    started: ClassVar[list] = []
    taken: ClassVar[dict] = {}

    def __init__(self, path, options, providers=None, **settings):
        assert settings == {"enable_fallback": 0}
        self._real = REAL(path, providers=["CPUExecutionProvider"])
        self.asked = options.devices if providers is None else providers
        names = [one[0] if isinstance(one, tuple) else one for one in self.asked]
        self._providers = [*names, "CPUExecutionProvider"]
        FakeSession.started.append(self.asked)

    def get_providers(self):
        return self._providers

    def get_outputs(self):
        return self._real.get_outputs()

    def run(self, *arguments):
        return self._real.run(*arguments)

    def get_provider_graph_assignment_info(self):
        taken = FakeSession.taken or {self._providers[0]: 2}
        kinds = ["QLinearConv", "Add", "MatMul", "Reshape", "Softmax"]
        nodes = [types.SimpleNamespace(op_type=kind) for kind in kinds]
        return [
            types.SimpleNamespace(ep_name=name, get_nodes=lambda n=n: nodes[:n]) for name, n in taken.items()
        ]


class FakeOptions(onnxruntime.SessionOptions):
    devices = ()

    def add_provider_for_devices(self, devices, options):
        self.devices = [(device.ep_name, dict(options)) for device in devices]


def ep_device(name, kind):
    hardware = types.SimpleNamespace(type=f"OrtHardwareDeviceType.{kind}")
    return types.SimpleNamespace(ep_name=name, device=hardware)


@pytest.fixture
def machine(monkeypatch):
    """Call it with the compiled-in providers and the plugins' devices of another machine."""

    def have(available=(), devices=()):
        names = [*available, "AzureExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
        cpu = ep_device("CPUExecutionProvider", "CPU")
        monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [cpu, *devices])
        monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
        monkeypatch.setattr(onnxruntime, "SessionOptions", FakeOptions)
        FakeSession.started.clear()
        monkeypatch.setattr(FakeSession, "taken", {})
        monkeypatch.setattr(providers, "_registered", {})
        monkeypatch.setattr(providers, "_PLUGINS", {})

    return have


def available():
    return [(one.kind, one.name) for one in BACKEND.devices() if one.available]


def test_what_is_listed(machine):
    machine(["TensorrtExecutionProvider", "CUDAExecutionProvider", "FutureExecutionProvider"])
    assert available() == [
        ("cpu", "CPUExecutionProvider"),
        ("gpu", "CUDAExecutionProvider"),
        ("gpu", "TensorrtExecutionProvider"),
        ("other", "FutureExecutionProvider"),
    ]
    rows = {one.name: one for one in BACKEND.devices()}
    assert "AzureExecutionProvider" not in rows
    assert "onnxruntime-directml has it" in rows["DmlExecutionProvider"].reason


def test_a_kind_takes_the_first_and_a_name_takes_that_one(machine, toy_bundle):
    machine(["TensorrtExecutionProvider", "CUDAExecutionProvider", "FutureExecutionProvider"])
    asked = {
        "gpu": ["CUDAExecutionProvider"],
        "cuda": ["CUDAExecutionProvider"],
        "TensorrtExecutionProvider": ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
        "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
        "FutureExecutionProvider": ["FutureExecutionProvider"],
    }
    for device, started in asked.items():
        FakeSession.started.clear()
        with load(toy_bundle, device=device) as sam:
            assert FakeSession.started == [started, started]
            assert sam.device == ("other" if device.startswith("Future") else "gpu")
            assert sam.placement == {"encoder": {started[0]: 2}, "decoder": {started[0]: 2}}
            assert sam.predict(sam.encode(toy.picture()), [[9, 9]]).masks.shape == (1, 3, 48, 80)
            (chosen,) = [one for one in sam.choices if one.chosen]
            assert chosen.name == started[0]
    for device in ("npu", "qnn", "future2"):
        with pytest.raises(DeviceError, match="CUDAExecutionProvider"):
            load(toy_bundle, device=device)


def test_a_plugin_is_used_by_its_device(machine, toy_bundle):
    machine(devices=[ep_device("OpenVINOExecutionProvider", kind) for kind in ("CPU", "GPU", "NPU")])
    assert available() == [
        ("cpu", "CPUExecutionProvider"),
        ("cpu", "OpenVINOExecutionProvider.0"),
        ("gpu", "OpenVINOExecutionProvider.1"),
        ("npu", "OpenVINOExecutionProvider.2"),
    ]
    with load(toy_bundle, device="npu") as sam:
        assert sam.device == "npu"
    assert FakeSession.started == [[("OpenVINOExecutionProvider", {})]] * 2
    with load(toy_bundle, device="openvinoexecutionprovider.1") as sam:
        assert sam.device == "gpu"


def test_qualcomms_simulation_is_called_one(machine, toy_bundle, monkeypatch):
    qnn = types.SimpleNamespace(get_qnn_htp_path=lambda: "/lib/QnnHtp.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", qnn)
    monkeypatch.setattr("sam_edge.backends.onnxruntime.isolated.open_isolated", open_in_process)
    machine(devices=[ep_device("QNNExecutionProvider", "CPU")])
    with load(toy_bundle, device="npu") as sam:
        assert sam.device == "npu-simulated"
    options = FakeSession.started[0][0][1]
    assert options["backend_path"] == "/lib/QnnHtp.so" and options["soc_model"]
    machine(devices=[ep_device("QNNExecutionProvider", "NPU")])
    with load(toy_bundle, device="qnn") as sam:
        assert sam.device == "npu"
    expected = {"backend_path": "/lib/QnnHtp.so", "enable_htp_fp16_precision": "1"}
    assert FakeSession.started[0][0][1] == expected


def test_a_provider_that_takes_no_node_is_an_error(machine, toy_bundle):
    machine(["CUDAExecutionProvider"])
    FakeSession.taken = {"CPUExecutionProvider": 5}
    with pytest.raises(DeviceError, match=r"CUDAExecutionProvider runs no node of encoder\.onnx"):
        load(toy_bundle, device="gpu")


def test_some_nodes_are_told(machine, toy_bundle):
    machine(["CUDAExecutionProvider"])
    FakeSession.taken = {"CUDAExecutionProvider": 3, "CPUExecutionProvider": 5}
    with load(toy_bundle, device="gpu") as sam:
        assert sam.placement["decoder"] == {"CUDAExecutionProvider": 3, "CPUExecutionProvider": 5}
        assert sam.compute_placement["decoder"] == {"CUDAExecutionProvider": 2, "CPUExecutionProvider": 2}


def test_an_older_onnx_runtime_without_plugins_or_placement(toy_bundle, monkeypatch):
    monkeypatch.delattr(onnxruntime, "get_ep_devices")
    monkeypatch.delattr(onnxruntime, "register_execution_provider_library")
    monkeypatch.delattr(REAL.__mro__[1], "get_provider_graph_assignment_info")
    assert ("cpu", "CPUExecutionProvider") in available()
    with load(toy_bundle) as sam:
        assert sam.placement == {"encoder": None, "decoder": None}


def test_the_cpu_says_how_many_nodes_it_took(sam):
    assert sam.placement["encoder"] == {"CPUExecutionProvider": 1}
    assert sam.placement["decoder"]["CPUExecutionProvider"] > 5


def plugin(monkeypatch, tmp_path, code):
    (tmp_path / "some_ep.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "some_ep", raising=False)
    monkeypatch.setattr(providers, "_PLUGINS", {"some_ep": "SomeExecutionProvider"})
    return next(one for one in BACKEND.devices() if one.name == "SomeExecutionProvider")


def test_a_plugins_package_is_registered_once(machine, monkeypatch, tmp_path):
    machine()
    told = []
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda *given: told.append(given))
    one = plugin(monkeypatch, tmp_path, "def get_library_path(): return '/lib/some.so'")
    assert told == [("SomeExecutionProvider", "/lib/some.so")]
    assert not one.available and "some_ep finds no device" in one.reason
    BACKEND.devices()
    assert len(told) == 1


@pytest.mark.parametrize("code", ["1 / 0", "", "def get_library_path(): return '/none/such.so'"])
def test_a_plugins_package_that_is_broken(machine, monkeypatch, tmp_path, toy_bundle, code):
    machine()
    one = plugin(monkeypatch, tmp_path, code)
    assert not one.available and one.reason.startswith("some_ep cannot be used: ")
    with pytest.raises(DeviceError, match="some_ep cannot be used"):
        load(toy_bundle, device="some")
    load(toy_bundle).close()


def test_openvinos_devices_by_name(monkeypatch, tmp_path):
    from sam_edge.backends.openvino import BACKEND as OPENVINO
    from sam_edge.backends.openvino import no_telemetry

    with no_telemetry():
        import openvino as ov

    seen = []

    class Core(ov.Core):
        available_devices = ("CPU", "GPU.0", "GPU.1", "NPU")

        def compile_model(self, model, device_name, config):
            seen.append(device_name)
            return types.SimpleNamespace()

    toy.write_encoder(tmp_path / "encoder.onnx")
    model = ov.Core().read_model(tmp_path / "encoder.onnx")
    ov.save_model(model, tmp_path / "encoder.xml", compress_to_fp16=False)
    monkeypatch.setattr(ov, "Core", Core)
    for device, name, kind in (("GPU.1", "GPU.1", "gpu"), ("gpu", "GPU.0", "gpu"), ("CPU", "CPU", "cpu")):
        assert OPENVINO.open(tmp_path / "encoder.xml", device, None).device == kind
        assert seen.pop() == name
    for device in ("AUTO:GPU,CPU", "GPU.2", "HETERO"):
        with pytest.raises(DeviceError, match=r"GPU\.0, GPU\.1"):
            OPENVINO.open(tmp_path / "encoder.xml", device, None)


def test_results_do_not_depend_on_how_the_device_is_called(toy_bundle, sam):
    with load(toy_bundle, device="CPUExecutionProvider") as other:
        found, expected = (one.predict(one.encode(toy.picture()), [[40, 24]]) for one in (other, sam))
    np.testing.assert_array_equal(found.low_res_logits, expected.low_res_logits)
