"""ONNX Runtime's execution providers: which are available, what they run on, which package adds them.

Some are compiled into the installed package. Others are plugins: libraries in packages of their own, which
have to be registered with ONNX Runtime (https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries).
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

from ..base import DeviceInfo, select_device

# The backend's name.
NAME = "onnxruntime"
CPU = "CPUExecutionProvider"
NPU_SIMULATED = "npu-simulated"
# The kind of a provider that neither sam-edge nor ONNX Runtime can classify; it is used only when named.
OTHER = "other"

# provider -> (kind, package; "" for providers that need a custom build), the preferred of a kind first.
# OpenVINO's provider runs on the device in its options, by default a CPU.
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
# These send the image to a server.
_REMOTE = {"AzureExecutionProvider"}
# Plugin packages. Each has get_library_path() and get_ep_names(), as ONNX Runtime requires.
_PLUGINS = {
    "onnxruntime_qnn": "QNNExecutionProvider",
    "onnxruntime_ep_webgpu": "WebGpuExecutionProvider",
    "onnxruntime_ep_openvino": "OpenVINOExecutionProvider",
    "onnxruntime_ep_nv_tensorrt_rtx": "NvTensorRTRTXExecutionProvider",
}
# Options that name the folder where a provider caches what it compiles.
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
# The chip that an x86 simulation of a Hexagon NPU simulates: a Snapdragon 8 Elite.
SIMULATED_QNN = {"soc_model": "69", "htp_arch": "79"}
# Plugin package -> why it could not be registered; "" where it was.
_registered: dict[str, str] = {}
_registration_lock = threading.Lock()


@dataclass(frozen=True)
class Provider:
    """An execution provider and how a session uses it.

    Attributes:
        info: the device as the user sees it.
        name: ONNX Runtime's name of the provider.
        runs_on: the `device` of its sessions.
        ep_device: a plugin's `OrtEpDevice`; None for a compiled-in provider.
        options: provider options.
    """

    info: DeviceInfo
    name: str
    runs_on: str
    ep_device: Any = None
    options: dict[str, str] = field(default_factory=dict)

    def cache_options(self, folder: Path) -> dict[str, str]:
        """Provider options that make it cache what it compiles in `folder`."""
        return {name: value.format(folder=folder) for name, value in _CACHE_OPTIONS[self.name].items()}

    @property
    def has_cache(self) -> bool:
        """Whether it can cache what it compiles."""
        return self.name in _CACHE_OPTIONS


def find_providers(ort: ModuleType) -> list[Provider]:
    """List every provider that is available or that a package would add, CPUs first; registers plugins."""
    with _registration_lock:
        broken = _register_plugins(ort)
    available = [name for name in ort.get_available_providers() if name not in _REMOTE]
    plugins: dict[str, list[Any]] = {}
    for one in _ep_devices(ort):
        if one.ep_name not in _REMOTE and one.ep_name != CPU:
            plugins.setdefault(one.ep_name, []).append(one)
    found = []
    for name in dict.fromkeys([*_KNOWN, *available, *plugins, *broken]):
        # ONNX Runtime 1.32 also lists plugins as available; only their devices say what they run on.
        if name in plugins:
            found += [_plugin_provider(name, i, plugins[name]) for i in range(len(plugins[name]))]
            continue
        kind, package = _KNOWN.get(name, (OTHER, ""))
        if name not in available and not package and name not in broken:
            continue
        reason = broken.get(name, f"not in the installed package; {package} has it")
        info = DeviceInfo(NAME, name, kind, name in available, "" if name in available else reason)
        found.append(Provider(info, name, kind))
    return sorted(found, key=lambda one: ("cpu", "gpu", "npu", OTHER).index(one.info.kind))


def select_provider(ort: ModuleType, device: str) -> Provider:
    """Return the provider to use for `device`, as `Backend.open` takes it.

    Raises:
        DeviceError: none is available; says which package would add one.
    """
    if device.casefold() in ("auto", "cpu"):
        return cpu_provider()
    providers = find_providers(ort)
    kind = device.casefold()
    hint = f"packages with a {kind} provider: {_packages_for(kind)}" if kind in ("gpu", "npu") else ""
    info = select_device([one.info for one in providers], device, "ONNX Runtime", hint)
    return next(one for one in providers if one.info == info)


def cpu_provider() -> Provider:
    """Return ONNX Runtime's own CPU provider, which every package has."""
    return Provider(DeviceInfo(NAME, CPU, "cpu", True, ""), CPU, "cpu")


def _packages_for(kind: str) -> str:
    """List the packages that have a provider of that kind."""
    return ", ".join(package for one, package in _KNOWN.values() if one == kind and package)


def _ep_devices(ort: ModuleType) -> list[Any]:
    # ONNX Runtime 1.22 and older have no plugins.
    return list(ort.get_ep_devices()) if hasattr(ort, "get_ep_devices") else []


def _plugin_provider(name: str, index: int, devices: list[Any]) -> Provider:
    """Return the provider of one of a plugin's devices."""
    device = devices[index]
    hardware = str(device.device.type).rpartition(".")[2].lower()
    kind = hardware if hardware in ("cpu", "gpu", "npu") else _KNOWN.get(name, (OTHER, ""))[0]
    options: dict[str, str] = {}
    runs_on = kind
    if name == "QNNExecutionProvider" and "onnxruntime_qnn" in sys.modules:
        qnn = sys.modules["onnxruntime_qnn"]
        options["backend_path"] = str(qnn.get_qnn_htp_path())
        # For the parts of a graph that are not quantized: the NPU has no FP32.
        options["enable_htp_fp16_precision"] = "1"
        if hardware == "cpu":
            # On x86-64 the package simulates the NPU bit for bit.
            kind, runs_on = "npu", NPU_SIMULATED
            options |= SIMULATED_QNN
    label = name if len(devices) == 1 else f"{name}.{index}"
    info = DeviceInfo(NAME, label, kind, True, "", runs_on == NPU_SIMULATED)
    return Provider(info, name, runs_on, device, options)


def _register_plugins(ort: ModuleType) -> dict[str, str]:
    """Register the installed plugin packages; returns provider -> why it cannot be used."""
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
        _PLUGINS[package]: reason or f"{package} finds no device that it can use on this machine"
        for package, reason in _registered.items()
        if _PLUGINS[package] not in usable
    }
