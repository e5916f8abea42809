"""OpenVINO, on the CPUs, GPUs and NPUs that it finds.

A decoder may have been exported for a fixed number of prompts and points. For another number the graph is
reshaped: on a CPU or GPU once, to dynamic shapes (a small decoder then takes half as long again); on an NPU,
whose compiler requires static shapes, once for each number of points, and prompts run one after the other.
Points cannot be padded to a fixed number instead: padding points take part in attention.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import STAGES
from ..errors import BackendError, DeviceError
from ..system.install import install_command
from ..types import Arrays
from .base import Backend, DeviceInfo, Session, select_device
from .compile_cache import CompileCache, processor_id

# kind -> (OpenVINO's name, what it requires)
_DEVICES = {
    "cpu": ("CPU", "the openvino package for this processor"),
    "gpu": ("GPU", "an Intel GPU and its driver (Level Zero and OpenCL)"),
    "npu": ("NPU", "an Intel Core Ultra NPU and its driver"),
}
NO_BF16 = "this CPU has no BF16 (AVX-512 BF16, AMX or Arm's), or OpenVINO does not use it"
# Reshaped graphs that a session keeps.
_MAX_RESHAPED = 8
_THREADS = "INFERENCE_NUM_THREADS"
_BLOB = "compiled.blob"
# OpenVINO's types of nodes that compute nothing, and of those that multiply matrices.
_NO_COMPUTE = {"Const", "Input", "Output"}
_MATMUL_OR_CONV = {"FullyConnected", "MatMul", "Convolution", "Deconvolution", "ScaledDotProductAttention"}
# Axes of prompts (0) and points (1), the only ones that vary from call to call.
_FREE_AXES: dict[str, tuple[int, ...]] = {
    "point_coords": (0, 1),
    "point_labels": (0, 1),
    "image_tokens": (0,),
    "mask_weights": (0,),
}
# `sys.modules` belongs to all threads.
_IMPORT_LOCK = threading.RLock()


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Hide the package openvino_telemetry while OpenVINO or NNCF is imported.

    With it, both report the import, and later use, to a web service; without it they report nothing.
    """
    name = "openvino_telemetry"
    with _IMPORT_LOCK:
        before = sys.modules.get(name)
        sys.modules[name] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            if before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = before


def _import_openvino() -> ModuleType:
    try:
        with no_telemetry():
            import openvino
    except ImportError as error:
        raise BackendError(f"OpenVINO is not installed; {install_command('openvino')}") from error
    return openvino


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Compiled:
    """A compiled graph with a pool of idle infer requests; each request serves one call at a time."""

    def __init__(self, compiled: Any, weights: Any = None) -> None:
        self._compiled = compiled
        self._idle: list[Any] = []
        # Mapped memory that the graph refers to; kept alive as long as it.
        self._weights = weights

    def layers(self) -> list[str]:
        """Return the type of each node, after fusion."""
        nodes = self._compiled.get_runtime_model().get_ops()
        return [node.get_rt_info()["layerType"].astype(str) for node in nodes]

    def run(self, inputs: Arrays) -> Arrays:
        """Run the graph on an idle request, or a new one."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        results = request.infer(inputs)
        # Copied: the request's next run overwrites its results.
        outputs = {port.any_name: np.array(array) for port, array in results.items()}
        self._idle.append(request)
        return outputs


class OpenVinoSession(Session):
    """One graph in OpenVINO; `run` may be called from several threads at once."""

    def __init__(
        self,
        core: Any,
        model: Any,
        device: DeviceInfo,
        config: dict[str, Any],
        cache: CompileCache | None = None,
    ) -> None:
        """Compile the graph, unless an NPU has to know the shapes of the prompts first.

        Args:
            core: an `openvino.Core`.
            model: an `openvino.Model`.
            device: where to run it.
            config: OpenVINO's properties: see `configuration`.
            cache: holds compiled graphs.
        """
        super().__init__(self._infer, device.kind)
        self._core, self._model, self._config, self._cache = core, model, config, cache
        self._name = device.name
        self._shapes = {port.any_name: list(port.partial_shape) for port in model.inputs}
        self._lock = threading.Lock()
        self._reshaped: dict[int, _Compiled] = {}
        as_exported = not (device.kind == "npu" and model.is_dynamic())
        self._as_exported = self._compile(model) if as_exported else None

    @property
    def placement(self) -> dict[str, int] | None:
        """Nodes on the device, which runs all of them: OpenVINO compiles the whole graph or fails.

        None where nothing is compiled before the first prompt.
        """
        return self._count(lambda kind: kind not in _NO_COMPUTE)

    @property
    def compute_placement(self) -> dict[str, int] | None:
        """As `placement`, counting only matmuls and convolutions."""
        return self._count(lambda kind: kind in _MATMUL_OR_CONV)

    def _count(self, counts: Callable[[str], bool]) -> dict[str, int] | None:
        as_exported = self._as_exported
        if as_exported is None:
            return None
        try:
            return {self._name: sum(map(counts, as_exported.layers()))}
        except Exception:  # a graph from the cache may have lost its layers' types
            return None

    def close(self) -> None:
        """Free the graph's memory."""
        super().close()
        with self._lock:
            self._as_exported = self._model = self._core = None
            self._reshaped = {}

    def _infer(self, inputs: Arrays) -> Arrays:
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        self._check(arrays)
        try:
            as_exported = self._as_exported
            if as_exported is not None and all(self._fits(n, a) for n, a in arrays.items()):
                return as_exported.run(arrays)
            if self.device == "npu":
                return self._one_by_one(arrays)
            return self._reshape(-1, -1).run(arrays)
        except Exception as error:
            raise BackendError(f"OpenVINO cannot run the graph: {_one_line(error)}") from error

    def _check(self, arrays: Arrays) -> None:
        if arrays.keys() != self._shapes.keys():
            raise BackendError(
                f"the inputs are {', '.join(arrays) or 'none'}; the graph expects {', '.join(self._shapes)}"
            )
        for name, array in arrays.items():
            shape, free = self._shapes[name], _FREE_AXES.get(name, ())
            fixed = [i for i, d in enumerate(shape) if i not in free and d.is_static]
            if len(shape) != array.ndim or any(shape[i] != array.shape[i] for i in fixed):
                expected = ", ".join(str(d) if i in fixed else "any" for i, d in enumerate(shape))
                raise BackendError(f"{name} has shape {array.shape}; the graph expects ({expected})")
        # A reshaped graph would broadcast inputs that disagree instead of failing.
        for axis, counted in enumerate(("prompts", "points")):
            named = [name for name, free in _FREE_AXES.items() if axis in free and name in arrays]
            if len({arrays[name].shape[axis] for name in named}) > 1:
                shapes = ", ".join(f"{name} {arrays[name].shape}" for name in named)
                raise BackendError(f"the inputs are for different numbers of {counted}: {shapes}")

    def _fits(self, name: str, array: NDArray[Any]) -> bool:
        return all(d.is_dynamic or d == size for d, size in zip(self._shapes[name], array.shape, strict=True))

    def _one_by_one(self, arrays: Arrays) -> Arrays:
        prompts, points = next(a for name, a in arrays.items() if name in _FREE_AXES).shape[:2]
        graph = self._reshape(1, points)
        parts = [
            graph.run({name: a[i : i + 1] if name in _FREE_AXES else a for name, a in arrays.items()})
            for i in range(prompts)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _reshape(self, prompts: int, points: int) -> _Compiled:
        """Return the graph compiled for that many prompts and points; -1 for any number."""
        with self._lock:
            if self._model is None:
                raise BackendError("this model was closed; load it again")
            if points not in self._reshaped:
                model = self._model.clone()
                shapes = {name: list(shape) for name, shape in self._shapes.items()}
                for name in _FREE_AXES.keys() & shapes.keys():
                    for axis in _FREE_AXES[name]:
                        shapes[name][axis] = (prompts, points)[axis]
                model.reshape(shapes)
                if len(self._reshaped) == _MAX_RESHAPED:
                    del self._reshaped[next(iter(self._reshaped))]
                self._reshaped[points] = self._compile(model, f"{prompts} prompts", f"{points} points")
            return self._reshaped[points]

    def _compile(self, model: Any, *shapes: str) -> _Compiled:
        """Compile `model`, or load it from the cache; `shapes` says how it was reshaped."""
        if self._cache is None or "EXPORT_IMPORT" not in self._core.get_property(
            self._name, "OPTIMIZATION_CAPABILITIES"
        ):
            return _Compiled(self._core.compile_model(model, self._name, self._config))
        key = (*self._cache_key(), *shapes)
        folder = self._cache.find(*key)
        if folder is not None:
            try:
                return _import_compiled(self._core, folder / _BLOB, self._name, self._config)
            except Exception:
                # Undamaged, and still refused: another build of the same version, say.
                self._cache.discard(*key)
        compiled = self._core.compile_model(model, self._name, self._config)
        self._cache.store(lambda to: _export_compiled(compiled, to / _BLOB), *key)
        return _Compiled(compiled)

    def _cache_key(self) -> tuple[str, ...]:
        """Everything besides the graph that a compiled graph depends on, which excludes the threads."""
        import openvino

        names = ("FULL_DEVICE_NAME", "DEVICE_ARCHITECTURE")
        device = [str(self._core.get_property(self._name, name)) for name in names]
        config = [f"{key} {value}" for key, value in sorted(self._config.items()) if key != _THREADS]
        return ("openvino", openvino.get_version(), self._name, *device, *config, processor_id())


def _import_compiled(core: Any, path: Path, name: str, config: dict[str, Any]) -> _Compiled:
    """Load what `_export_compiled` wrote, mapped into memory: OpenVINO may use the weights in place."""
    import openvino

    blob = np.memmap(path, np.uint8, "c")
    try:
        compiled = core.import_model(openvino.Tensor(blob, shared_memory=True), name, config)
    except TypeError:  # before 2025.2
        return _Compiled(core.import_model(path.read_bytes(), name, config))
    return _Compiled(compiled, blob)


def _export_compiled(compiled: Any, path: Path) -> None:
    with path.open("wb") as file:
        file.write(compiled.export_model().getbuffer())


class OpenVino(Backend):
    """The OpenVINO backend."""

    name = "openvino"
    formats = ("openvino",)
    concurrent_open = True

    def devices(self) -> list[DeviceInfo]:
        """Every CPU, GPU and NPU that OpenVINO finds, and what a missing kind requires."""
        try:
            available = _import_openvino().Core().available_devices
        except BackendError as error:
            return [DeviceInfo(self.name, "CPU", "cpu", False, str(error))]
        found = []
        for kind, (name, requirement) in _DEVICES.items():
            names = [one for one in available if one.partition(".")[0] == name]
            found += [DeviceInfo(self.name, one, kind, True, "") for one in names]
            if not names:
                found.append(
                    DeviceInfo(self.name, name, kind, False, f"not found; it requires {requirement}")
                )
        return found

    def open(self, path: Path, device: str, threads: int | None) -> OpenVinoSession:
        """Load an .xml and the .bin beside it on a device; "auto" is the CPU, "GPU.1" is a device, too.

        Raises:
            DeviceError: the device is not available, or does not compute in the graph's precision.
            BackendError: OpenVINO is not installed, or refuses the file.
        """
        return self._open(path, device, threads, None)

    def open_cached(
        self, path: Path, device: str, threads: int | None, cache: CompileCache
    ) -> OpenVinoSession:
        """As `open`, with the graphs that OpenVINO compiled."""
        return self._open(path, device, threads, cache)

    def _open(
        self, path: Path, device: str, threads: int | None, cache: CompileCache | None
    ) -> OpenVinoSession:
        openvino = _import_openvino()
        kind = device.casefold()
        hint = f"it requires {_DEVICES[kind][1]}" if kind in _DEVICES else ""
        chosen = select_device(self.devices(), device, "OpenVINO", hint)
        core = openvino.Core()
        try:
            model = read_model(core, path)
            config = configuration(chosen.kind, threads, _precision(model))
            return OpenVinoSession(core, model, chosen, config, cache)
        except DeviceError:
            raise
        except Exception as error:
            raise BackendError(f"OpenVINO cannot load {path} on {chosen.name}: {_one_line(error)}") from error


def read_model(core: Any, path: Path) -> Any:
    """Read an .xml file with its weights; those of the decoder's stages are in decoder.bin."""
    if path.stem in STAGES and not path.with_suffix(".bin").is_file():
        return core.read_model(path, path.with_name("decoder.bin"))
    return core.read_model(path)


def has_bf16() -> bool:
    """Whether OpenVINO computes in BF16 on this CPU, which takes AVX-512 BF16, AMX or Arm's BF16.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    return "BF16" in _import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _precision(model: Any) -> str:
    """Return the precision that the graph was exported in."""
    if not model.has_rt_info("sam_edge"):
        return "fp32"
    facts = json.loads(model.get_rt_info("sam_edge").astype(str))
    return str(facts.get("precision", "fp32"))


def configuration(kind: str, threads: int | None, precision: str) -> dict[str, Any]:
    """Return OpenVINO's properties for a device.

    Args:
        kind: "cpu", "gpu" or "npu".
        threads: threads on a CPU; None for OpenVINO's choice.
        precision: the precision that the graph was exported in.

    Raises:
        DeviceError: a CPU without BF16 for a graph in BF16.
    """
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    # By default OpenVINO computes in bfloat16 or float16 where the hardware can, at the cost of the masks.
    if kind == "cpu" and precision == "bf16":
        if not has_bf16():
            raise DeviceError(f"{NO_BF16}; load another precision")
        config["INFERENCE_PRECISION_HINT"] = "bf16"
    elif kind == "cpu" or (kind == "gpu" and precision == "fp32"):
        config["INFERENCE_PRECISION_HINT"] = "f32"
    if kind == "cpu":
        # By default activations in front of INT8 weights are quantized as well.
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    if kind == "cpu" and threads is not None:
        config[_THREADS] = threads
    return config


BACKEND = OpenVino()
