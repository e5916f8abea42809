"""Match variants with devices, and check that this machine has what they require.

A variant is made for at most one thing on each of three axes, `sam_edge.axes.AXES`:

- `accelerator`: a chip that is to run its graphs whole, and `browser`: WebAssembly. Elsewhere such graphs
  give the same masks, but there the bundle's other variants are the ones to take.
- `instruction_set`: on CPUs without it the graphs give worse masks. `requires` says which features a CPU must
  have. Variants that require what it does not have are passed over, and refused where there is no other.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache

from ..axes import TARGETS, Requirement
from ..backends import DeviceInfo
from ..bundle.bundle import Bundle
from ..bundle.variant import Variant
from ..errors import DeviceError, SamEdgeWarning
from ..system.cpu import this_cpu


def target_of(device: DeviceInfo | None) -> str | None:
    """The name of the target that the device is one of, if any."""
    if device is None:
        return None
    return next((one.name for one in TARGETS if one.devices and device.name.startswith(one.devices)), None)


def meant_for(variants: Sequence[Variant], device: DeviceInfo | None) -> list[Variant]:
    """Return the variants that are made for the device; all of them where none is."""
    target = target_of(device)
    return [one for one in variants if one.target == target] or list(variants)


def forbids_fallback(variant: Variant) -> bool:
    """Whether the chip that the variant is made for must run its graphs whole."""
    return variant.target is not None and TARGETS.get(variant.target).runs_whole


def unmet_requirement(variant: Variant, device: DeviceInfo | None) -> str | None:
    """Say what the variant requires and this machine's CPU does not have; None where it has it all.

    A system that does not list the features of its CPU is given the benefit of the doubt; a `SamEdgeWarning`
    says so once.

    Args:
        variant: of the bundle.
        device: what it is to run on; None for a CPU. Others have no requirements.

    Raises:
        BundleError: a requirement that cannot be read.
    """
    if device is not None and device.kind != "cpu":
        return None
    for requirement in map(Requirement.parse, variant.requires):
        cpu = this_cpu()
        if requirement.architecture != cpu.architecture:
            continue
        met = cpu.has_any(requirement.any_of)
        if met is None:
            _warn_of_unknown_cpu(variant.id, str(requirement))
        elif not met:
            return f"requires {requirement}, which this CPU does not have"
    return None


@cache
def _warn_of_unknown_cpu(variant: str, requirement: str) -> None:
    warnings.warn(
        f"{variant} requires {requirement}, and this system does not say what its CPU has; compare the masks "
        "with `sam-edge verify`",
        SamEdgeWarning,
        stacklevel=2,
    )


def suited(variants: Sequence[Variant], device: DeviceInfo | None) -> list[Variant]:
    """Return the variants whose requirements this machine meets; all of them where it meets none's."""
    return [one for one in variants if unmet_requirement(one, device) is None] or list(variants)


def check_machine(bundle: Bundle, variant: Variant, device: DeviceInfo | None) -> None:
    """Raise `DeviceError` where the variant requires what this machine's CPU does not have."""
    unmet = unmet_requirement(variant, device)
    if unmet is None:
        return
    others = [
        one.precision
        for one in bundle.manifest.variants
        if one.format == variant.format and one.target is None and unmet_requirement(one, device) is None
    ]
    instead = f"ask for precision {' or '.join(others)}, or " if others else ""
    raise DeviceError(
        f"{variant.id} {unmet}: its masks would be worse than exported; "
        f"{instead}export it again with --target any"
    )
