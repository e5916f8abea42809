"""ONNX Runtime, with whichever execution providers the installed packages have."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import BackendError, DeviceError
from ..types import Arrays
from .base import Backend, DeviceInfo, Session, pick_device
from .compile_cache import Warm, WorkingFolder, processor
from .providers import CPU, NPU_SIMULATED, Provider, cpu_provider, find_providers, packages_for

_OPTIMISED, _PLACEMENT = "graph.ort", "placement.json"
# Making an entry takes five times as much memory as the graph, once.
_WORTH_KEEPING = 512_000_000
# What ONNX Runtime says where it may not leave anything to the CPU and would have to.
_NOT_WHOLE = "fallback to CPU EP has been explicitly disabled"
# Operators that multiply matrices: MatMul, QLinearConv, FusedGemm and the like.
_PRODUCTS = re.compile("MatMul|Gemm|Conv|Attention")


def _import() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError("ONNX Runtime is not installed; pip install 'sam-edge[onnxruntime]'") from error
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class OnnxRuntime(Backend):
    """The ONNX Runtime backend."""

    name = "onnxruntime"
    formats = ("onnx",)
    opens_together = True
    checks_warm = True

    def devices(self) -> list[DeviceInfo]:
        """Every execution provider here or known to sam-edge, with the package that would add it."""
        try:
            ort = _import()
        except BackendError as error:
            return [DeviceInfo(self.name, CPU, "cpu", False, str(error))]
        return [provider.info for provider in find_providers(ort, self.name)]

    def has(self, device: str) -> bool:
        """As for every backend; of a CPU, which is always there, without looking for plugins."""
        if device.casefold() not in ("auto", "cpu"):
            return super().has(device)
        try:
            _import()
        except BackendError:
            return False
        return True

    def open(self, path: Path, device: str, threads: int | None) -> Session:
        """Load an ONNX file on a device; "auto" is the CPU. A provider's name is a device, too.

        Raises:
            DeviceError: the device is not there, or did not take the graph.
            BackendError: not installed, or it refuses the file.
        """
        return self._open(path, device, threads, None)

    def open_warm(self, path: Path, device: str, threads: int | None, warm: Warm) -> Session:
        """As `open`, from the graph as ONNX Runtime optimised it, or with what the provider compiled."""
        return self._open(path, device, threads, warm)

    def open_whole(self, path: Path, device: str, threads: int | None) -> Session:
        """As `open`, with ONNX Runtime forbidden to leave anything of the graph to its CPU."""
        return self._open(path, device, threads, None, whole=True)

    def open_here(
        self, path: Path, device: str, threads: int | None, whole: bool = False, context: Path | None = None
    ) -> Session:
        """As `open` or `open_whole`, in this process also where `open` takes one of its own.

        Args:
            path: the graph.
            device: as for `open`.
            threads: as for `open`.
            whole: whether nothing may be left to the CPU.
            context: where to write the graph as the device's compiler made it: an ONNX file of one node, an
                EPContext (https://onnxruntime.ai/docs/execution-providers/EP-Context-Design.html).
        """
        ort = _import()
        return self._start(ort, self._pick(ort, device), path, threads, None, whole, context)

    def _open(
        self, path: Path, device: str, threads: int | None, warm: Warm | None, whole: bool = False
    ) -> Session:
        ort = _import()
        provider = self._pick(ort, device)
        if warm is not None and provider.name != CPU:
            warm.check()
        if provider.runs_on == NPU_SIMULATED:
            # Imports much that nothing else needs.
            from .isolated import open_isolated

            return open_isolated(path, device=provider.info.name, threads=threads, whole=whole)
        return self._start(ort, provider, path, threads, warm, whole)

    def _start(
        self,
        ort: ModuleType,
        provider: Provider,
        path: Path,
        threads: int | None,
        warm: Warm | None,
        whole: bool,
        context: Path | None = None,
    ) -> Session:
        options = session_options(ort, threads)
        if provider.name == CPU:
            return _on_cpu(ort, path, options, threads, warm)
        if whole:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if context is not None:
            options.add_session_config_entry("ep.context_enable", "1")
            options.add_session_config_entry("ep.context_file_path", str(context))
            options.add_session_config_entry("ep.context_embed_mode", "1")
        working = None
        extra: dict[str, str] = {}
        if warm is not None and provider.has_cache:
            working = WorkingFolder(warm, "onnxruntime", ort.__version__, provider.info.name, processor())
            extra = provider.cache_options(working.path)
        try:
            session = _start(ort, path, options, provider, extra)
            placement = _placement(session)
            _check(session, placement, provider, path)
        except Exception:
            if working is not None:
                working.close()
            raise
        if working is not None:
            working.save()
        return _session(session, provider.runs_on, placement, working)

    def _pick(self, ort: ModuleType, device: str) -> Provider:
        if device.casefold() in ("auto", "cpu"):
            return cpu_provider(self.name)
        providers = find_providers(ort, self.name)
        kind = device.casefold()
        adds = f"a {kind} comes with: {packages_for(kind)}" if kind in ("gpu", "npu") else ""
        info = pick_device([one.info for one in providers], device, "ONNX Runtime", adds)
        return next(one for one in providers if one.info == info)


def session_options(ort: ModuleType, threads: int | None, placed: bool = True) -> Any:
    """ONNX Runtime's `SessionOptions` as all sessions have them.

    `placed`: whether the session is to tell its `_placement`; making it takes a fifth longer then. Settings
    that a version of ONNX Runtime does not know do it no harm.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Sessions take turns: idle threads of one would keep the next from the processor, those of one that was
    # just made the making of the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", "200")
    if placed:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # A plan of memory made ahead wastes it: ViT-B takes 1.6 times as much with one, and no less time. So does
    # keeping a tensor's memory for a later one of the same shape: it stays taken in between.
    options.enable_mem_pattern = options.enable_mem_reuse = False
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _start(
    ort: ModuleType, path: Path, options: Any, provider: Provider, extra: dict[str, str] | None = None
) -> Any:
    """An `InferenceSession`. ONNX Runtime's own fallback to the CPU, which it prints, is off."""
    settings = provider.options | (extra or {})
    try:
        if provider.ep_device is not None:
            options.add_provider_for_devices([provider.ep_device], settings)
            return ort.InferenceSession(str(path), options, enable_fallback=0)
        chosen: list[Any] = [(provider.name, settings) if settings else provider.name]
        if provider.name == "TensorrtExecutionProvider":
            # It hands on what it cannot compile.
            chosen.append("CUDAExecutionProvider")
        return ort.InferenceSession(str(path), options, providers=chosen, enable_fallback=0)
    except Exception as error:
        if _NOT_WHOLE in str(error):
            raise DeviceError(
                f"{provider.info.name} does not take the whole of {path}, which was made for it; another "
                "version of its package may, or export the bundle again"
            ) from error
        where = "" if provider.name == CPU else f" on {provider.info.name}"
        raise BackendError(f"ONNX Runtime cannot load {path}{where}: {_line(error)}") from error


Placement = tuple[dict[str, int] | None, dict[str, int] | None]


def _placement(session: Any) -> Placement:
    """How many nodes each provider took, and how many matrix products and convolutions.

    None where this version of ONNX Runtime does not say.
    """
    try:
        parts = session.get_provider_graph_assignment_info()
        nodes: Counter[str] = Counter()
        products: Counter[str] = Counter()
        for part in parts:
            taken = part.get_nodes()
            nodes[part.ep_name] += len(taken)
            products[part.ep_name] += sum(bool(_PRODUCTS.search(node.op_type)) for node in taken)
    except Exception:
        return None, None
    return dict(nodes), dict(products)


def _check(session: Any, placement: Placement, provider: Provider, path: Path) -> None:
    used = session.get_providers()
    if not used or used[0] != provider.name:
        raise DeviceError(
            f"{provider.name} did not start (it fell back to {', '.join(used)}); check its drivers, or "
            "ask for --device cpu"
        )
    if provider.name != CPU and placement[0] is not None and not placement[0].get(provider.name):
        raise DeviceError(f"{provider.name} takes nothing of {path.name}; ask for --device cpu")


def _session(
    session: Any, device: str, placement: Placement, working: WorkingFolder | None = None
) -> Session:
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:
            raise BackendError(f"ONNX Runtime cannot run the graph: {_line(error)}") from error

    return Session(run, device, None if working is None else working.close, *placement)


def _on_cpu(ort: ModuleType, path: Path, options: Any, threads: int | None, warm: Warm | None) -> Session:
    provider = cpu_provider("onnxruntime")
    if warm is not None and _bytes(path) <= _WORTH_KEEPING:
        facts = ("onnxruntime", ort.__version__, CPU, processor())
        folder = warm.find(*facts)
        if folder is None:
            warm.check()
            folder = warm.keep(lambda to: _write_optimised(ort, path, to), *facts)
        if folder is not None:
            ready = session_options(ort, threads, placed=False)
            ready.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            # Weights stay in the file, which is mapped, instead of being read and copied.
            ready.add_session_config_entry("session.use_memory_mapped_ort_model", "1")
            ready.add_session_config_entry("session.use_ort_model_bytes_for_initializers", "1")
            try:
                nodes, products = json.loads((folder / _PLACEMENT).read_bytes())
                return _session(_start(ort, folder / _OPTIMISED, ready, provider), "cpu", (nodes, products))
            except (BackendError, OSError, ValueError):
                # As whole as it was written, and still of no use.
                warm.discard(*facts)
    if warm is not None:
        warm.check()
    session = _start(ort, path, options, provider)
    placement = _placement(session)
    _check(session, placement, provider, path)
    return _session(session, "cpu", placement)


def _bytes(path: Path) -> int:
    """Of a graph and the weights beside it."""
    return sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))


def _write_optimised(ort: ModuleType, path: Path, folder: Path) -> None:
    """The graph as ONNX Runtime fuses and lays it out for this processor, in its own format: read in half the
    time of ONNX's; and its `_placement`."""
    options = session_options(ort, None)
    options.optimized_model_filepath = str(folder / _OPTIMISED)
    options.add_session_config_entry("session.save_model_format", "ORT")
    placement = _placement(_start(ort, path, options, cpu_provider("onnxruntime")))
    (folder / _PLACEMENT).write_text(json.dumps(placement), "utf-8")


BACKEND = OnnxRuntime()
