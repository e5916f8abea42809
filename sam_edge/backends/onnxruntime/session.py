"""ONNX Runtime sessions in this process: options, execution provider, placement, cached graphs."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import BackendError, DeviceError
from ...system.install import install_command
from ...types import Arrays
from ..base import Session
from ..compile_cache import CompileCache, WorkingCopy, processor_id
from .providers import CPU, NAME, Provider, cpu_provider, select_provider

_OPTIMISED, _PLACEMENT = "graph.ort", "placement.json"
# Graphs of more bytes are not cached: optimising and saving one takes five times its size in memory.
_MAX_CACHED_BYTES = 512_000_000
# Part of ONNX Runtime's message where it may leave no node to the CPU and would have to.
_FALLBACK_REFUSED = "fallback to CPU EP has been explicitly disabled"
# Operators that multiply matrices: MatMul, QLinearConv, FusedGemm and the like.
_COMPUTE_OPERATORS = re.compile("MatMul|Gemm|Conv|Attention")

# Nodes by execution provider: all of them, and matmuls and convolutions only.
Placement = tuple[dict[str, int] | None, dict[str, int] | None]


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, its own log lines off.

    Raises:
        BackendError: not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"ONNX Runtime is not installed; {install_command('onnxruntime')}") from error
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


def session_options(ort: ModuleType, threads: int | None, report_placement: bool = True) -> Any:
    """Create the `SessionOptions` that all of sam-edge's sessions use.

    Entries that a version of ONNX Runtime does not know have no effect.

    Args:
        ort: the module onnxruntime.
        threads: threads within one operator; None for ONNX Runtime's choice.
        report_placement: record which provider runs each node; creating a session then takes a fifth longer.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Sessions run in turn: spinning threads of an idle one would take the processor from the next, and those
    # of one just created from the creation of the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", "200")
    if report_placement:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Planning memory ahead wastes it: ViT-B needs 1.6 times as much with a plan and is no faster. So does
    # reusing a tensor's memory for a later one of the same shape: it stays allocated in between.
    options.enable_mem_pattern = options.enable_mem_reuse = False
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def open_in_process(
    path: Path,
    *,
    device: str,
    threads: int | None,
    allow_fallback: bool = True,
    context_file: Path | None = None,
) -> Session:
    """Load a graph in this process, on a simulated NPU too, which `OnnxRuntime.open` isolates.

    Args:
        path: the graph.
        device: as for `Backend.open`.
        threads: as for `Backend.open`.
        allow_fallback: whether nodes may run on the CPU provider instead of the device's.
        context_file: where to write the graph as the device's compiler made it: an ONNX file of one node, an
            EPContext (https://onnxruntime.ai/docs/execution-providers/EP-Context-Design.html).

    Raises:
        DeviceError, BackendError: as `Backend.open`.
    """
    ort = import_onnxruntime()
    provider = select_provider(ort, device)
    return open_session(
        ort, provider, path, threads, allow_fallback=allow_fallback, context_file=context_file
    )


def open_session(
    ort: ModuleType,
    provider: Provider,
    path: Path,
    threads: int | None,
    *,
    cache: CompileCache | None = None,
    allow_fallback: bool = True,
    context_file: Path | None = None,
) -> Session:
    """Load a graph on an execution provider; arguments and errors as those of `open_in_process`.

    `cache` holds what the provider compiled, or, on the CPU, the optimised graph.
    """
    options = session_options(ort, threads)
    if provider.name == CPU:
        return _open_on_cpu(ort, path, options, threads, cache)
    if not allow_fallback:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if context_file is not None:
        options.add_session_config_entry("ep.context_enable", "1")
        options.add_session_config_entry("ep.context_file_path", str(context_file))
        options.add_session_config_entry("ep.context_embed_mode", "1")
    working = None
    extra: dict[str, str] = {}
    if cache is not None and provider.has_cache:
        working = WorkingCopy(cache, NAME, ort.__version__, provider.info.name, processor_id())
        extra = provider.cache_options(working.path)
    try:
        session = _create(ort, path, options, provider, extra)
        placement = _placement(session)
        _check_provider(session, placement, provider, path)
    except Exception:
        if working is not None:
            working.close()
        raise
    if working is not None:
        working.save()
    return _wrap(session, provider.runs_on, placement, working)


def _open_on_cpu(
    ort: ModuleType, path: Path, options: Any, threads: int | None, cache: CompileCache | None
) -> Session:
    provider = cpu_provider()
    if cache is not None and _graph_bytes(path) <= _MAX_CACHED_BYTES:
        key = (NAME, ort.__version__, CPU, processor_id())
        folder = cache.find(*key)
        if folder is None:
            cache.check_files()
            folder = cache.store(lambda to: _write_optimised(ort, path, to), *key)
        if folder is not None:
            cached = session_options(ort, threads, report_placement=False)
            cached.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            # Weights stay in the file, which is mapped, instead of being read and copied.
            cached.add_session_config_entry("session.use_memory_mapped_ort_model", "1")
            cached.add_session_config_entry("session.use_ort_model_bytes_for_initializers", "1")
            try:
                nodes, products = json.loads((folder / _PLACEMENT).read_bytes())
                return _wrap(_create(ort, folder / _OPTIMISED, cached, provider), "cpu", (nodes, products))
            except (BackendError, OSError, ValueError):
                # Undamaged, and still refused: another build of the same version, say.
                cache.discard(*key)
    if cache is not None:
        cache.check_files()
    session = _create(ort, path, options, provider)
    placement = _placement(session)
    _check_provider(session, placement, provider, path)
    return _wrap(session, "cpu", placement)


def _graph_bytes(path: Path) -> int:
    """Size of a graph and of the weights beside it."""
    return sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))


def _write_optimised(ort: ModuleType, path: Path, folder: Path) -> None:
    """Write the graph, fused and laid out for this processor, in the ORT format, and its placement.

    ONNX Runtime loads that format in half the time of ONNX's.
    """
    options = session_options(ort, None)
    options.optimized_model_filepath = str(folder / _OPTIMISED)
    options.add_session_config_entry("session.save_model_format", "ORT")
    placement = _placement(_create(ort, path, options, cpu_provider()))
    (folder / _PLACEMENT).write_text(json.dumps(placement), "utf-8")


def _create(
    ort: ModuleType, path: Path, options: Any, provider: Provider, extra: dict[str, str] | None = None
) -> Any:
    """Create an `InferenceSession`. ONNX Runtime's own fallback to the CPU, which prints, is off."""
    settings = provider.options | (extra or {})
    try:
        if provider.ep_device is not None:
            options.add_provider_for_devices([provider.ep_device], settings)
            return ort.InferenceSession(str(path), options, enable_fallback=0)
        chosen: list[Any] = [(provider.name, settings) if settings else provider.name]
        if provider.name == "TensorrtExecutionProvider":
            # TensorRT hands on what it cannot compile.
            chosen.append("CUDAExecutionProvider")
        return ort.InferenceSession(str(path), options, providers=chosen, enable_fallback=0)
    except Exception as error:
        if _FALLBACK_REFUSED in str(error):
            raise DeviceError(
                f"{provider.info.name} cannot run all of {path}, which was exported for it; another version "
                "of its package may, or export the bundle again"
            ) from error
        where = "" if provider.name == CPU else f" on {provider.info.name}"
        raise BackendError(f"ONNX Runtime cannot load {path}{where}: {_one_line(error)}") from error


def _placement(session: Any) -> Placement:
    """Count the nodes that each provider runs; None where this version of ONNX Runtime does not report it."""
    try:
        parts = session.get_provider_graph_assignment_info()
        nodes: Counter[str] = Counter()
        products: Counter[str] = Counter()
        for part in parts:
            assigned = part.get_nodes()
            nodes[part.ep_name] += len(assigned)
            products[part.ep_name] += sum(bool(_COMPUTE_OPERATORS.search(node.op_type)) for node in assigned)
    except Exception:
        return None, None
    return dict(nodes), dict(products)


def _check_provider(session: Any, placement: Placement, provider: Provider, path: Path) -> None:
    """Raise `DeviceError` unless the provider started and runs part of the graph."""
    used = session.get_providers()
    if not used or used[0] != provider.name:
        raise DeviceError(
            f"{provider.name} did not start (the session fell back to {', '.join(used)}); check its drivers, "
            "or ask for --device cpu"
        )
    if provider.name != CPU and placement[0] is not None and not placement[0].get(provider.name):
        raise DeviceError(f"{provider.name} runs no node of {path.name}; ask for --device cpu")


def _wrap(session: Any, device: str, placement: Placement, working: WorkingCopy | None = None) -> Session:
    """Wrap an `InferenceSession` as a `Session`."""
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:
            raise BackendError(f"ONNX Runtime cannot run the graph: {_one_line(error)}") from error

    return Session(run, device, None if working is None else working.close, *placement)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
