"""The CPU of this machine: its architecture and the instruction sets that it has."""

from __future__ import annotations

import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ARCHITECTURES = {
    **dict.fromkeys(("x86_64", "amd64", "i386", "i686", "x86"), "x86"),
    **dict.fromkeys(("arm64", "aarch64", "armv7l", "armv8l"), "arm"),
}
_CPUINFO = Path("/proc/cpuinfo")
# What sysctl calls a feature -> Linux's name of it.
_SYSCTL = {
    "hw.optional.avx512vnni": "avx512_vnni",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
}


@dataclass(frozen=True)
class Cpu:
    """A CPU.

    Attributes:
        architecture: "x86", "arm", or what the system says.
        features: by Linux's names; None where the system does not say.
    """

    architecture: str
    features: frozenset[str] | None

    def has_any(self, features: tuple[str, ...]) -> bool | None:
        """Whether it has one of these; None where the system does not say."""
        return None if self.features is None else not self.features.isdisjoint(features)


@cache
def this_cpu() -> Cpu:
    """The CPU of this machine: from /proc/cpuinfo on Linux, sysctl on macOS; elsewhere without features."""
    machine = platform.machine().casefold()
    architecture = _ARCHITECTURES.get(machine, machine)
    features = {"linux": _linux_features, "darwin": _mac_features}.get(sys.platform, lambda: None)()
    return Cpu(architecture, features)


def _linux_features() -> frozenset[str] | None:
    """The flags that all processors have, as the kernel lists them for the first."""
    with suppress(OSError):
        for line in _CPUINFO.read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip().casefold() in ("flags", "features"):
                return frozenset(value.split())
    return None


def _mac_features() -> frozenset[str] | None:
    command = ["/usr/sbin/sysctl", "-a"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    if not any(key.startswith("hw.optional.") for key in values):
        return None
    return frozenset(name for key, name in _SYSCTL.items() if values.get(key) == "1")
