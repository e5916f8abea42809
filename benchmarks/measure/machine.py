"""The machine that figures come from: what it is, and what its processes use."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sam_edge
from sam_edge.system.threads import cores

_PACKAGES = (
    "numpy", "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-qnn",
    "onnxruntime-openvino", "onnxruntime-ep-webgpu", "onnxruntime-webgpu", "openvino", "coremltools", "torch",
    "pillow",
)  # fmt: skip
# What matters to matrix products, of the many that processors list.
_ISA = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "neon", "asimd", "asimddp", "i8mm",
    "bf16", "sve", "sve2",
)  # fmt: skip
_RAPL = Path("/sys/class/powercap")


def describe(threads: int) -> dict[str, Any]:
    """The part "machine" of a report; what cannot be read is "unknown", null or absent."""
    return {
        "cpu": _cpu(),
        "isa": _isa(),
        "cores": cores(),
        "threads": threads,
        "governor": _governor(),
        "memory_mb": _memory_mb(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "drivers": _drivers(),
        "packages": {"sam-edge": sam_edge.__version__, **_packages()},
        "revision": _revision(),
    }


def peak_rss_mb() -> float | None:
    """The most memory that this process has held, in MB; None where the system does not say.

    On Linux `ru_maxrss` of a child begins with its parent's; VmHWM does not.
    """
    for line in _lines("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def device_memory_mb() -> float | None:
    """What this process holds of an NVIDIA GPU's memory, in MB; None where nothing says so."""
    answer = _ask("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    for line in answer.splitlines():
        pid, _, used = line.partition(",")
        if pid.strip() == str(os.getpid()) and used.strip().isdigit():
            return int(used) * 1024**2 / 1e6
    return None


def energy_j() -> float | None:
    """The running total of what the processor packages have used, in joules; None where it cannot be read.

    Intel's and AMD's RAPL counters. They start again now and then: a difference below 0 means nothing.
    """
    total, found = 0.0, False
    with suppress(OSError, ValueError):
        for domain in sorted(_RAPL.glob("*rapl:[0-9]*")):
            # Packages only: "intel-rapl:0:0" is a part of "intel-rapl:0".
            if domain.name.count(":") == 1:
                total += int((domain / "energy_uj").read_text()) / 1e6
                found = True
    return total if found else None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _cpu() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        return _ask("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _isa() -> list[str]:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith(("flags", "Features")):
            there = set(line.partition(":")[2].split())
            return [flag for flag in _ISA if flag in there]
    return [platform.machine()]


def _governor() -> str:
    found = _lines("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return found[0] if found else "unknown"


def _memory_mb() -> float | None:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "darwin":
        answer = _ask("sysctl", "-n", "hw.memsize")
        return int(answer) / 1e6 if answer.isdigit() else None
    return None


def _drivers() -> dict[str, str]:
    found = {}
    answer = _ask("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if answer:
        found["nvidia"] = "; ".join(answer.splitlines())
    return found


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _revision() -> str | None:
    """The commit that sam-edge runs from, where it runs from a clone."""
    root = Path(sam_edge.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    return _ask("git", "-C", str(root), "describe", "--always", "--dirty") or None


def _ask(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
