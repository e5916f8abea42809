"""Which variants are made for which machine, and whether this machine has what they require.

A variant is made for at most one thing on each of three axes, `sam_edge.axes.AXES`:

- `accelerator`: a chip that is to run its graphs whole, and `browser`: WebAssembly. Elsewhere such graphs
  give the same masks, but there the bundle's other variants are the ones to take.
- `instruction_set`: on CPUs without it the graphs give worse masks. `requires` says which features a CPU must
  have. Variants without them are passed over, and refused where there is no other.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

from ..axes import TARGETS, Requirement
from ..backends import DeviceInfo
from ..bundle.bundle import Bundle
from ..errors import DeviceError, SamEdgeWarning
from ..system.cpu import this_cpu


def target_of(device: DeviceInfo | None) -> str | None:
    """The name of the target that the device is one of, if any."""
    if device is None:
        return None
    return next((one.name for one in TARGETS if one.devices and device.name.startswith(one.devices)), None)


def own_target(variant: dict[str, Any]) -> str | None:
    """The accelerator or browser that the variant is made for; None for one of the ordinary variants."""
    return variant.get("accelerator") or variant.get("browser")


def is_made_for_something(variant: dict[str, Any]) -> bool:
    """Whether the variant is not for every machine alike."""
    return own_target(variant) is not None or bool(variant.get("requires"))


def meant_for(variants: Sequence[dict[str, Any]], device: DeviceInfo | None) -> list[dict[str, Any]]:
    """Those of `variants` that are made for the device: all of them where none is."""
    target = target_of(device)
    return [one for one in variants if own_target(one) == target] or list(variants)


def runs_whole(variant: dict[str, Any]) -> bool:
    """Whether the chip that the variant is made for must run its graphs whole."""
    target = own_target(variant)
    return target is not None and TARGETS.get(target).runs_whole


def unmet_requirement(variant: dict[str, Any], device: DeviceInfo | None) -> Requirement | None:
    """The first requirement of the variant that this machine's CPU does not meet, where it is to run on it.

    A system that does not list the features of its CPU is given the benefit of the doubt; a `SamEdgeWarning`
    says so once.

    Args:
        variant: its entry in the manifest.
        device: what it is to run on; None for a CPU.
    """
    if device is not None and device.kind != "cpu":
        return None
    cpu = this_cpu()
    for requirement in map(Requirement.parse, variant.get("requires", ())):
        if requirement.architecture != cpu.architecture:
            continue
        met = cpu.has_any(requirement.any_of)
        if met is None:
            _warn_of_unknown_cpu(str(variant["id"]), str(requirement))
        elif not met:
            return requirement
    return None


@cache
def _warn_of_unknown_cpu(variant: str, requirement: str) -> None:
    warnings.warn(
        f"{variant} requires {requirement}, and this system does not say what its CPU has; compare the masks "
        "with `sam-edge verify`",
        SamEdgeWarning,
        stacklevel=2,
    )


def suited(variants: Sequence[dict[str, Any]], device: DeviceInfo | None) -> list[dict[str, Any]]:
    """Those of `variants` whose requirements this machine meets: all of them where it meets none's."""
    return [one for one in variants if unmet_requirement(one, device) is None] or list(variants)


def check_machine(bundle: Bundle, variant: dict[str, Any], device: DeviceInfo | None) -> None:
    """Raise `DeviceError` where the variant requires what this machine's CPU does not have."""
    unmet = unmet_requirement(variant, device)
    if unmet is None:
        return
    others = [
        one["id"]
        for one in bundle.manifest.variants
        if one["format"] == variant["format"]
        and own_target(one) is None
        and unmet_requirement(one, device) is None
    ]
    instead = f"load {' or '.join(others)} instead" if others else "export it again with --target any"
    raise DeviceError(
        f"{variant['id']} requires {unmet}, which this CPU does not have: its masks would be worse than "
        f"exported; {instead}"
    )
