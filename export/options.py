"""Turns options into the list of variants to make, and refuses options that contradict each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sam_edge import axes
from sam_edge.errors import SamEdgeError

from .context.lowerings import TILE_MB
from .context.options import Option, Options, all_options
from .contracts import CONTRACTS
from .formats import FORMATS
from .formats.base import Format
from .formats.onnx import COMPAT
from .targets import TARGETS
from .targets.base import Target

__all__ = ["Option", "Options", "Plan", "check", "declared_options", "plans"]


@dataclass(frozen=True)
class Plan:
    """A variant to make.

    Attributes:
        format: the format to write.
        precision: its precision.
        target: the machine it is made for; for ordinary variants, the instruction set.
    """

    format: Format[Any]
    precision: axes.Precision
    target: Target

    @property
    def id(self) -> str:
        """As in the manifest: "onnx-int8-hexagon"."""
        own = (self.target.name,) if self.target.info.has_own_variants else ()
        return "-".join((self.format.name, self.precision.name, *own))

    @property
    def gate(self) -> float:
        """The mean IoU that it must reach."""
        return axes.gate(self.precision.name, self.target.name).mean


def asked_targets(options: Options, own_variants: bool) -> list[Target]:
    """The requested targets with variants of their own or, for False, those that shape ordinary ones."""
    targets = [TARGETS.get(name) for name in options.targets]
    return [one for one in targets if one.info.has_own_variants == own_variants]


def full_range(options: Options) -> bool:
    """Whether INT8 weights use all 8 bits; else 7."""
    return any(one.full_range for one in asked_targets(options, own_variants=False))


def instruction_set_facts(options: Options) -> dict[str, Any]:
    """Return the manifest fields of an INT8 variant: the CPU features that it requires."""
    found: dict[str, Any] = {}
    for target in asked_targets(options, own_variants=False):
        if target.info.requires:
            found = {target.info.axis: target.name, "requires": [str(one) for one in target.info.requires]}
    return found


def plans(options: Options) -> list[Plan]:
    """The variants to make, the ordinary ones first."""
    formats = [FORMATS.get(name) for name in options.formats]
    precisions = [axes.PRECISIONS.get(name) for name in options.precisions]
    found = [
        Plan(format, precision, target)
        for target in asked_targets(options, own_variants=False)
        for format in formats
        for precision in precisions
        if precision.name in format.recipes
    ]
    return found + [
        Plan(format, precision, target)
        for target in asked_targets(options, own_variants=True)
        for format in formats
        if format.name in target.formats
        for precision in precisions
        if precision.name in target.precisions
    ]


def default_precisions(targets: Sequence[str]) -> tuple[str, ...]:
    """The precisions of an export that names none: those of the targets' own variants, or FP32."""
    own = {precision for name in targets for precision in TARGETS.get(name).precisions}
    return tuple(name for name in axes.PRECISIONS.names() if name in (own or {"fp32"}))


def declared_options() -> list[Option[Any]]:
    """Every option that a format or a target declares."""
    return all_options([*FORMATS, *TARGETS])


def check(options: Options, clip: bool = False) -> None:
    """Raise `SamEdgeError` for options that exclude each other or would change nothing.

    Args:
        options: the requested options.
        clip: whether a CLIP is to be exported, too.
    """
    formats = [FORMATS.get(name) for name in options.formats]
    targets = [TARGETS.get(name) for name in options.targets]
    _check_owners(options, [*formats, *targets])
    if asked_targets(options, own_variants=False):
        _check_precisions(options, formats)
    _check_axes(targets)
    for target in asked_targets(options, own_variants=True):
        _check_own_variants(options, target)
    _check_all_are_made(options)
    for one in formats:
        one.check(options)
    for target in targets:
        target.check(options)
    if not 0 < TILE_MB.of(options) < math.inf:
        raise SamEdgeError(f"{TILE_MB.flag} is {TILE_MB.of(options)}; expected a number of megabytes above 0")
    if options.min_iou is not None and not 0 <= options.min_iou <= 1:
        raise SamEdgeError(f"--min-iou {options.min_iou} is not a share; expected 0 to 1")
    for target in targets:
        if clip and not target.supports_clip:
            raise SamEdgeError(f"--clip is not supported by --target {target.name}; leave one of the two out")
        compat = COMPAT.of(options)
        if compat and not target.supports_contracts and options.targets == (target.name,):
            raise SamEdgeError(
                f"--compat {compat} is not supported by --target {target.name}; give --target "
                f"any,{target.name}"
            )


def check_models(options: Options) -> list[Any]:
    """Return the checks that depend on the model; each takes its catalogue entry."""
    compat = COMPAT.of(options)
    return [CONTRACTS.get(compat).check] if compat else []


def _check_owners(options: Options, owners: Sequence[Format[Any] | Target]) -> None:
    """Refuse an option that no requested format or target understands."""
    understood = {option.name for option in all_options(owners)}
    for option in declared_options():
        if option.is_given(options) and option.name not in understood:
            formats = _owners(option, FORMATS)
            where = "format" if formats else "target"
            names = formats or _owners(option, TARGETS)
            raise SamEdgeError(
                f"{option.flag} needs --{where} {' or '.join(names)}: add {names[0]} to --{where}, or leave "
                f"{option.flag} out"
            )


def _owners(option: Option[Any], registry: Iterable[Format[Any] | Target]) -> list[str]:
    return [one.name for one in registry if option in one.options]


def _check_precisions(options: Options, formats: Sequence[Format[Any]]) -> None:
    """Refuse a precision that no requested format has, and a format that has none of the requested ones."""
    for precision in options.precisions:
        having = [one for one in FORMATS if precision in one.recipes]
        titles, names = " and ".join(one.info.title for one in having), [one.name for one in having]
        own = asked_targets(options, own_variants=True)
        if not set(names) & set(options.formats) and not any(precision in one.precisions for one in own):
            advice = f"add {names[0]} to --format, or leave {precision} out" if names else "leave it out"
            raise SamEdgeError(
                f"--precision {precision} is supported by {titles or 'no format'} only; {advice}"
            )
    for format in formats:
        if not set(options.precisions) & set(format.recipes):
            asked = ",".join(options.precisions)
            raise SamEdgeError(
                f"--precision {asked} is not supported by --format {format.name}, which has "
                f"{','.join(format.precisions)}; give another one for the other formats"
            )


def _check_all_are_made(options: Options) -> None:
    """Refuse a precision that no variant would have."""
    made = {plan.precision.name for plan in plans(options)}
    for precision in options.precisions:
        if precision not in made:
            raise SamEdgeError(
                f"--precision {precision} is supported by none of --target {','.join(options.targets)}; "
                f"leave {precision} out"
            )


def _check_axes(targets: Sequence[Target]) -> None:
    """Refuse two instruction sets for the ordinary variants."""
    names = [one.name for one in targets if not one.info.has_own_variants]
    if len(names) > 1:
        raise SamEdgeError(
            f"--target {' and '.join(names)} are both instruction sets of CPUs; give one of them"
        )


def _check_own_variants(options: Options, target: Target) -> None:
    """Refuse formats and precisions that a target's own variants do not have."""
    name, alone = target.name, not asked_targets(options, own_variants=False)
    known, formats = set(target.formats), set(options.formats)
    if not formats & known or (alone and not formats <= known):
        titles = " and ".join(FORMATS.get(one).info.title for one in target.formats)
        raise SamEdgeError(
            f"--target {name} makes {titles} graphs; give --format {','.join(target.formats)}, and --target "
            f"any,{name} for the variants of other devices beside them"
        )
    asked, had = set(options.precisions), set(target.precisions)
    if not asked & had or (options.targets == (name,) and not asked <= had):
        reason = target.others or "it has no others"
        raise SamEdgeError(f"--target {name}: {reason}; give --precision {','.join(target.precisions)}")
