"""OpenVINO, on the CPUs, GPUs and NPUs that it finds.

A decoder may have been exported for a fixed number of prompts and points. Where another number comes, the
graph is reshaped: on a CPU or GPU once, to any number (slower by half for a small decoder, and still right);
on an NPU, whose compiler wants fixed shapes, once for each number of points, with the prompts run one after
the other. Points cannot be padded to a fixed number instead: padding points take part in attention.
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
from ..types import Arrays
from .base import Backend, DeviceInfo, Session, pick_device
from .compile_cache import Warm, processor

# kind -> (OpenVINO's name, what adds it)
_DEVICES = {
    "cpu": ("CPU", "the openvino package for this processor"),
    "gpu": ("GPU", "an Intel GPU and its driver (Level Zero and OpenCL)"),
    "npu": ("NPU", "an Intel Core Ultra NPU and its driver"),
}
NO_BF16 = "this CPU has no BF16 (AVX-512 BF16, AMX or Arm's), or OpenVINO does not use it"
# How many reshaped graphs a session keeps.
_KEPT = 8
_THREADS = "INFERENCE_NUM_THREADS"
_BLOB = "compiled.blob"
# OpenVINO's names of nodes that do nothing, and of those that multiply matrices.
_NO_WORK = {"Const", "Input", "Output"}
_PRODUCTS = {"FullyConnected", "MatMul", "Convolution", "Deconvolution", "ScaledDotProductAttention"}
# Axes of prompts (0) and points (1): the only ones that a caller may choose.
_FREE_AXES: dict[str, tuple[int, ...]] = {
    "point_coords": (0, 1),
    "point_labels": (0, 1),
    "image_tokens": (0,),
    "mask_weights": (0,),
}
# The modules that are there are the process's, and not a thread's.
_IMPORTING = threading.RLock()


@contextmanager
def no_telemetry() -> Iterator[None]:
    """While OpenVINO or NNCF is imported: both would report that to a web service, and use it from then on.

    Without openvino_telemetry, which pip installs with them, they do neither.
    """
    name = "openvino_telemetry"
    with _IMPORTING:
        before = sys.modules.get(name)
        sys.modules[name] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            if before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = before


def _import() -> ModuleType:
    try:
        with no_telemetry():
            import openvino
    except ImportError as error:
        raise BackendError("OpenVINO is not installed; pip install 'sam-edge[openvino]'") from error
    return openvino


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Compiled:
    """A compiled graph and the requests that are idle; each request serves one call at a time."""

    def __init__(self, compiled: Any, weights: Any = None) -> None:
        self._compiled = compiled
        self._idle: list[Any] = []
        # Mapped memory, to be let go of last.
        self._weights = weights

    def layers(self) -> list[str]:
        """The kind of each node, fused as OpenVINO runs them."""
        nodes = self._compiled.get_runtime_model().get_ops()
        return [node.get_rt_info()["layerType"].astype(str) for node in nodes]

    def run(self, inputs: Arrays) -> Arrays:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        results = request.infer(inputs)
        # The request's next run writes over its results.
        outputs = {port.any_name: np.array(array) for port, array in results.items()}
        self._idle.append(request)
        return outputs


class OpenVinoSession(Session):
    """One graph in OpenVINO; `run` may be called from several threads."""

    def __init__(
        self, core: Any, model: Any, name: str, kind: str, config: dict[str, Any], warm: Warm | None = None
    ) -> None:
        super().__init__(self._infer, kind)
        self._core, self._model, self._name, self._config, self._warm = core, model, name, config, warm
        self._shapes = {port.any_name: list(port.partial_shape) for port in model.inputs}
        self._lock = threading.Lock()
        self._reshaped: dict[int, _Compiled] = {}
        as_written = not (kind == "npu" and model.is_dynamic())
        self._as_written = self._compile(model) if as_written else None

    @property
    def placement(self) -> dict[str, int] | None:
        """All of the graph on the one device: OpenVINO compiles it whole or refuses. None where prompts of
        other shapes have to come first."""
        return self._count(lambda kind: kind not in _NO_WORK)

    @property
    def compute_placement(self) -> dict[str, int] | None:
        """Matrix products and convolutions."""
        return self._count(lambda kind: kind in _PRODUCTS)

    def _count(self, counts: Callable[[str], bool]) -> dict[str, int] | None:
        as_written = self._as_written
        if as_written is None:
            return None
        try:
            return {self._name: sum(map(counts, as_written.layers()))}
        except Exception:  # a graph that was compiled before may have lost its names
            return None

    def close(self) -> None:
        """Free the graph's memory."""
        super().close()
        with self._lock:
            self._as_written = self._model = self._core = None
            self._reshaped = {}

    def _infer(self, inputs: Arrays) -> Arrays:
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        self._check(arrays)
        try:
            as_written = self._as_written
            if as_written is not None and all(self._fits(n, a) for n, a in arrays.items()):
                return as_written.run(arrays)
            if self.device == "npu":
                return self._one_by_one(arrays)
            return self._for(-1, -1).run(arrays)
        except Exception as error:
            raise BackendError(f"OpenVINO cannot run the graph: {_line(error)}") from error

    def _check(self, arrays: Arrays) -> None:
        if arrays.keys() != self._shapes.keys():
            raise BackendError(
                f"the graph takes {', '.join(self._shapes)}; it was given {', '.join(arrays) or 'nothing'}"
            )
        for name, array in arrays.items():
            shape, free = self._shapes[name], _FREE_AXES.get(name, ())
            fixed = [i for i, d in enumerate(shape) if i not in free and d.is_static]
            if len(shape) != array.ndim or any(shape[i] != array.shape[i] for i in fixed):
                wanted = ", ".join(str(d) if i in fixed else "any" for i, d in enumerate(shape))
                raise BackendError(f"{name} has shape {array.shape}; the graph takes ({wanted})")
        # A reshaped graph would compute something from inputs that disagree.
        for axis, what in enumerate(("prompts", "points")):
            named = [name for name, free in _FREE_AXES.items() if axis in free and name in arrays]
            if len({arrays[name].shape[axis] for name in named}) > 1:
                shapes = ", ".join(f"{name} {arrays[name].shape}" for name in named)
                raise BackendError(f"the inputs are for different numbers of {what}: {shapes}")

    def _fits(self, name: str, array: NDArray[Any]) -> bool:
        return all(d.is_dynamic or d == size for d, size in zip(self._shapes[name], array.shape, strict=True))

    def _one_by_one(self, arrays: Arrays) -> Arrays:
        prompts, points = next(a for name, a in arrays.items() if name in _FREE_AXES).shape[:2]
        graph = self._for(1, points)
        parts = [
            graph.run({name: a[i : i + 1] if name in _FREE_AXES else a for name, a in arrays.items()})
            for i in range(prompts)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _for(self, prompts: int, points: int) -> _Compiled:
        """The graph for so many prompts and points; -1 for any number."""
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
                if len(self._reshaped) == _KEPT:
                    del self._reshaped[next(iter(self._reshaped))]
                self._reshaped[points] = self._compile(model, f"{prompts} prompts", f"{points} points")
            return self._reshaped[points]

    def _compile(self, model: Any, *shapes: str) -> _Compiled:
        """Compile, or take what was compiled before; `shapes` says how `model` was reshaped."""
        if self._warm is None or "EXPORT_IMPORT" not in self._core.get_property(
            self._name, "OPTIMIZATION_CAPABILITIES"
        ):
            return _Compiled(self._core.compile_model(model, self._name, self._config))
        facts = (*self._facts(), *shapes)
        folder = self._warm.find(*facts)
        if folder is not None:
            try:
                return _imported(self._core, folder / _BLOB, self._name, self._config)
            except Exception:
                # As whole as it was written, and still of no use.
                self._warm.discard(*facts)
        compiled = self._core.compile_model(model, self._name, self._config)
        self._warm.keep(lambda to: _export(compiled, to / _BLOB), *facts)
        return _Compiled(compiled)

    def _facts(self) -> tuple[str, ...]:
        """What a compiled graph depends on besides the graph; not on the number of threads."""
        import openvino

        names = ("FULL_DEVICE_NAME", "DEVICE_ARCHITECTURE")
        device = [str(self._core.get_property(self._name, name)) for name in names]
        config = [f"{key} {value}" for key, value in sorted(self._config.items()) if key != _THREADS]
        return ("openvino", openvino.get_version(), self._name, *device, *config, processor())


def _imported(core: Any, path: Path, name: str, config: dict[str, Any]) -> _Compiled:
    """What `_export` wrote, mapped into memory: OpenVINO may use the weights where they are."""
    import openvino

    blob = np.memmap(path, np.uint8, "c")
    try:
        compiled = core.import_model(openvino.Tensor(blob, shared_memory=True), name, config)
    except TypeError:  # before 2025.2
        return _Compiled(core.import_model(path.read_bytes(), name, config))
    return _Compiled(compiled, blob)


def _export(compiled: Any, path: Path) -> None:
    with path.open("wb") as file:
        file.write(compiled.export_model().getbuffer())


class OpenVino(Backend):
    """The OpenVINO backend."""

    name = "openvino"
    formats = ("openvino",)
    opens_together = True

    def devices(self) -> list[DeviceInfo]:
        """A CPU, GPU and NPU, with what would add those that are not there."""
        try:
            there = _import().Core().available_devices
        except BackendError as error:
            return [DeviceInfo(self.name, "CPU", "cpu", False, str(error))]
        found = []
        for kind, (name, adds) in _DEVICES.items():
            names = [one for one in there if one.partition(".")[0] == name]
            found += [DeviceInfo(self.name, one, kind, True, "") for one in names]
            if not names:
                found.append(DeviceInfo(self.name, name, kind, False, f"not found; {adds} would add it"))
        return found

    def open(self, path: Path, device: str, threads: int | None) -> OpenVinoSession:
        """Load an OpenVINO .xml, and the .bin beside it, on a device; "auto" is the CPU. "GPU.1" is one, too.

        Raises:
            DeviceError: the device is not there.
            BackendError: not installed, or it refuses the file.
        """
        return self._open(path, device, threads, None)

    def open_warm(self, path: Path, device: str, threads: int | None, warm: Warm) -> OpenVinoSession:
        """As `open`, with what OpenVINO compiled."""
        return self._open(path, device, threads, warm)

    def _open(self, path: Path, device: str, threads: int | None, warm: Warm | None) -> OpenVinoSession:
        openvino = _import()
        kind = device.casefold()
        adds = f"it would take {_DEVICES[kind][1]}" if kind in _DEVICES else ""
        chosen = pick_device(self.devices(), device, "OpenVINO", adds)
        core = openvino.Core()
        try:
            model = read_model(core, path)
            config = configuration(chosen.kind, threads, _precision(model))
            return OpenVinoSession(core, model, chosen.name, chosen.kind, config, warm)
        except DeviceError:
            raise
        except Exception as error:
            raise BackendError(f"OpenVINO cannot load {path} on {chosen.name}: {_line(error)}") from error


def read_model(core: Any, path: Path) -> Any:
    """A graph; one of the decoder's stages has no .bin of its own and reads the decoder's."""
    if path.stem in STAGES and not path.with_suffix(".bin").is_file():
        return core.read_model(path, path.with_name("decoder.bin"))
    return core.read_model(path)


def has_bf16() -> bool:
    """Whether this CPU computes in BF16: it has AVX-512 BF16, AMX, or Arm's.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    return "BF16" in _import().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _precision(model: Any) -> str:
    """The precision that the export meant the graph for."""
    if not model.has_rt_info("sam_edge"):
        return "fp32"
    facts = json.loads(model.get_rt_info("sam_edge").astype(str))
    return str(facts.get("precision", "fp32"))


def configuration(kind: str, threads: int | None, precision: str) -> dict[str, Any]:
    """The configuration of a device.

    Raises:
        DeviceError: a CPU that has not what the precision takes.
    """
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    # Left alone, OpenVINO computes in bfloat16 or float16 wherever the hardware can, whatever masks it makes.
    if kind == "cpu" and precision == "bf16":
        if not has_bf16():
            raise DeviceError(f"{NO_BF16}; load another precision")
        config["INFERENCE_PRECISION_HINT"] = "bf16"
    elif kind == "cpu" or (kind == "gpu" and precision == "fp32"):
        config["INFERENCE_PRECISION_HINT"] = "f32"
    if kind == "cpu":
        # It would round the activations ahead of weights in INT8 as well.
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    if kind == "cpu" and threads is not None:
        config[_THREADS] = threads
    return config


BACKEND = OpenVino()
