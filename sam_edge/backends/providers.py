"""ONNX Runtime's execution providers: which there are, what they run on, which package has them.

Some are compiled into the installed package. Others are plugins: libraries in packages of their own, which
ONNX Runtime must be told of (https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from .base import DeviceInfo

CPU = "CPUExecutionProvider"
NPU_SIMULATED = "npu-simulated"
# A provider that neither we nor ONNX Runtime can place is used by its name only.
OTHER = "other"

# provider -> (kind, the package that has it, "" for those that only a build of one's own has), the preferred
# of a kind first. OpenVINO's runs on what its options say, by default a CPU.
_KNOWN = {
    CPU: ("cpu", "onnxruntime"),
    "OpenVINOExecutionProvider": ("cpu", "onnxruntime-openvino or onnxruntime-ep-openvino"),
    "DnnlExecutionProvider": ("cpu", ""),
    "XnnpackExecutionProvider": ("cpu", ""),
    "CUDAExecutionProvider": ("gpu", "onnxruntime-gpu"),
    "TensorrtExecutionProvider": ("gpu", "onnxruntime-gpu with TensorRT"),
    "NvTensorRTRTXExecutionProvider": ("gpu", "onnxruntime-ep-nv-tensorrt-rtx"),
    "ROCMExecutionProvider": ("gpu", "onnxruntime-rocm"),
    "MIGraphXExecutionProvider": ("gpu", "onnxruntime-migraphx"),
    "DmlExecutionProvider": ("gpu", "onnxruntime-directml"),
    "WebGpuExecutionProvider": ("gpu", "onnxruntime-ep-webgpu or onnxruntime-webgpu"),
    "CoreMLExecutionProvider": ("npu", "onnxruntime (on macOS)"),
    "QNNExecutionProvider": ("npu", "onnxruntime-qnn"),
    "VitisAIExecutionProvider": ("npu", "AMD's Ryzen AI software"),
    "CANNExecutionProvider": ("npu", "onnxruntime-cann"),
    "NnapiExecutionProvider": ("npu", ""),
    "VSINPUExecutionProvider": ("npu", ""),
    "RknpuExecutionProvider": ("npu", ""),
}
# These send the picture away.
_NOT_LOCAL = {"AzureExecutionProvider"}
# Packages of plugins. Each has get_library_path() and get_ep_names(), as ONNX Runtime asks of them.
_PLUGINS = {
    "onnxruntime_qnn": "QNNExecutionProvider",
    "onnxruntime_ep_webgpu": "WebGpuExecutionProvider",
    "onnxruntime_ep_openvino": "OpenVINOExecutionProvider",
    "onnxruntime_ep_nv_tensorrt_rtx": "NvTensorRTRTXExecutionProvider",
}
# Where a provider keeps what it compiled: options that name a folder.
_CACHE_OPTIONS = {
    "TensorrtExecutionProvider": {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "{folder}",
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": "{folder}",
    },
    "NvTensorRTRTXExecutionProvider": {"nv_runtime_cache_path": "{folder}"},
    "MIGraphXExecutionProvider": {"migraphx_model_cache_dir": "{folder}"},
    "OpenVINOExecutionProvider": {"cache_dir": "{folder}"},
    "CoreMLExecutionProvider": {"ModelCacheDirectory": "{folder}"},
}
# What an x86 simulation of a Hexagon NPU simulates: a Snapdragon 8 Elite.
SIMULATED_QNN = {"soc_model": "69", "htp_arch": "79"}
# What happened to each plugin's package: "" for nothing.
_registered: dict[str, str] = {}
_registering = threading.Lock()


@dataclass(frozen=True)
class Provider:
    """A provider as a session is to use it.

    Attributes:
        info: what the user sees.
        name: ONNX Runtime's name of it.
        ep_device: an `OrtEpDevice` of a plugin; None for a compiled-in provider.
        options: what it is started with.
        runs_on: what a session with it says that it runs on.
    """

    info: DeviceInfo
    name: str
    runs_on: str
    ep_device: Any = None
    options: dict[str, str] = field(default_factory=dict)

    def cache_options(self, folder: Path) -> dict[str, str]:
        """The options that have it keep what it compiled in `folder`."""
        return {name: value.format(folder=folder) for name, value in _CACHE_OPTIONS[self.name].items()}

    @property
    def has_cache(self) -> bool:
        """Whether it can keep what it compiled."""
        return self.name in _CACHE_OPTIONS


def find_providers(ort: ModuleType, backend: str) -> list[Provider]:
    """Every provider that is here or that a package would add, CPUs first; registers plugins on the way."""
    with _registering:
        broken = _register_plugins(ort)
    there = [name for name in ort.get_available_providers() if name not in _NOT_LOCAL]
    plugins: dict[str, list[Any]] = {}
    for one in _ep_devices(ort):
        if one.ep_name not in _NOT_LOCAL and one.ep_name != CPU:
            plugins.setdefault(one.ep_name, []).append(one)
    found = []
    for name in dict.fromkeys([*_KNOWN, *there, *plugins, *broken]):
        # ONNX Runtime 1.32 also lists plugins as available: their devices say on what.
        if name in plugins:
            found += [_plugin(backend, name, i, plugins[name]) for i in range(len(plugins[name]))]
            continue
        kind, package = _KNOWN.get(name, (OTHER, ""))
        if name not in there and not package and name not in broken:
            continue
        reason = broken.get(name, f"not in the installed package; {package} has it")
        info = DeviceInfo(backend, name, kind, name in there, "" if name in there else reason)
        found.append(Provider(info, name, kind))
    return sorted(found, key=lambda one: ("cpu", "gpu", "npu", OTHER).index(one.info.kind))


def cpu_provider(backend: str) -> Provider:
    """The one that is always there."""
    return Provider(DeviceInfo(backend, CPU, "cpu", True, ""), CPU, "cpu")


def packages_for(kind: str) -> str:
    """The packages that have a provider of that kind."""
    return ", ".join(package for of, package in _KNOWN.values() if of == kind and package)


def _ep_devices(ort: ModuleType) -> list[Any]:
    # ONNX Runtime 1.22 and older has no plugins.
    return list(ort.get_ep_devices()) if hasattr(ort, "get_ep_devices") else []


def _plugin(backend: str, name: str, index: int, devices: list[Any]) -> Provider:
    device = devices[index]
    hardware = str(device.device.type).rpartition(".")[2].lower()
    kind = hardware if hardware in ("cpu", "gpu", "npu") else _KNOWN.get(name, (OTHER, ""))[0]
    options: dict[str, str] = {}
    runs_on = kind
    if name == "QNNExecutionProvider" and "onnxruntime_qnn" in sys.modules:
        qnn = sys.modules["onnxruntime_qnn"]
        options["backend_path"] = str(qnn.get_qnn_htp_path())
        # Whatever a graph does not quantise: the NPU has no FP32.
        options["enable_htp_fp16_precision"] = "1"
        if hardware == "cpu":
            # On other processors the package has a simulation of the NPU, to the bit.
            kind, runs_on = "npu", NPU_SIMULATED
            options |= SIMULATED_QNN
    label = name if len(devices) == 1 else f"{name}.{index}"
    return Provider(DeviceInfo(backend, label, kind, True, ""), name, runs_on, device, options)


def _register_plugins(ort: ModuleType) -> dict[str, str]:
    """Tell ONNX Runtime of the plugin packages that are installed; provider -> why it cannot be used."""
    if not hasattr(ort, "register_execution_provider_library"):
        return {}
    for package, provider in _PLUGINS.items():
        if package in _registered or importlib.util.find_spec(package) is None:
            continue
        _registered[package] = ""
        # An app may have registered it itself, under any name.
        if any(one.ep_name == provider for one in _ep_devices(ort)):
            continue
        try:
            plugin = importlib.import_module(package)
            ort.register_execution_provider_library(provider, plugin.get_library_path())
        except Exception as error:
            _registered[package] = f"{package} cannot be used: {' '.join(str(error).split())}"
    usable = {one.ep_name for one in _ep_devices(ort)}
    return {
        _PLUGINS[package]: reason or f"{package} finds no device that it can use here"
        for package, reason in _registered.items()
        if _PLUGINS[package] not in usable
    }
