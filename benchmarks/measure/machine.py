"""Describes the machine, and reads what its processes use."""

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
# Of the instruction sets that processors list, those that matter to matrix products.
_ISA = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "neon", "asimd", "asimddp", "i8mm",
    "bf16", "sve", "sve2",
)  # fmt: skip
_RAPL = Path("/sys/class/powercap")


def describe(threads: int) -> dict[str, Any]:
    """Make the section "machine" of a report; what cannot be read is "unknown", null or absent."""
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


def device_memory_mb() -> float | None:
    """How much memory of an NVIDIA GPU this process holds, in MB; None where it cannot be read."""
    output = _output_of("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    for line in output.splitlines():
        pid, _, used = line.partition(",")
        if pid.strip() == str(os.getpid()) and used.strip().isdigit():
            return int(used) * 1024**2 / 1e6
    return None


def energy_j() -> float | None:
    """Read the energy counters of the processor packages, in joules; None where they cannot be read.

    These are Intel's and AMD's RAPL counters. They wrap around: a difference below 0 means nothing.
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
        return _output_of("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _isa() -> list[str]:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            return [flag for flag in _ISA if flag in flags]
    return [platform.machine()]


def _governor() -> str:
    found = _lines("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return found[0] if found else "unknown"


def _memory_mb() -> float | None:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "darwin":
        output = _output_of("sysctl", "-n", "hw.memsize")
        return int(output) / 1e6 if output.isdigit() else None
    return None


def _drivers() -> dict[str, str]:
    found = {}
    output = _output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if output:
        found["nvidia"] = "; ".join(output.splitlines())
    return found


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _revision() -> str | None:
    """The commit, where sam-edge runs from a clone."""
    root = Path(sam_edge.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    return _output_of("git", "-C", str(root), "describe", "--always", "--dirty") or None


def _output_of(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
