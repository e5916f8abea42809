"""The names in the manifest's schema that come from registries: formats, precisions and targets.

`manifest.schema.json` has sam-edge's own, for other readers; `python -m tools.manifest_schema` writes them.
The runtime puts in the names of other packages, too, before it validates.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ..axes import AXES, FORMATS, PRECISIONS, TARGETS, Registry

Names = Callable[[Registry[Any]], tuple[str, ...]]


@cache
def _own_schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("manifest.schema.json").read_bytes())
    return loaded


def schema() -> dict[str, Any]:
    """Return the manifest's JSON schema, with every format, precision and target that is registered."""
    return with_names(_own_schema())


def with_names(schema: dict[str, Any], names: Names = Registry.names) -> dict[str, Any]:
    """A copy of the manifest's schema whose enums hold what the registries do.

    Args:
        schema: the manifest's schema.
        names: the names of a registry to put in: all that are known, or `Registry.built_in_names`.
    """
    schema = copy.deepcopy(schema)
    properties = schema["$defs"]["variant"]["properties"]
    properties["format"]["enum"] = list(names(FORMATS))
    properties["precision"]["enum"] = list(names(PRECISIONS))
    targets = [TARGETS.get(name) for name in names(TARGETS)]
    for axis in AXES:
        properties[axis]["enum"] = [
            one.name for one in targets if one.axis == axis and (one.requires or one.has_own_variants)
        ]
    return schema


def find_unknown_names(data: Any) -> None:
    """Look for another package that registers a name of this manifest that is not known yet."""
    variants = data.get("variants") if isinstance(data, dict) else None
    for variant in variants if isinstance(variants, list) else ():
        if isinstance(variant, dict):
            keys: tuple[tuple[str, Registry[Any]], ...] = (
                ("format", FORMATS),
                ("precision", PRECISIONS),
                *((axis, TARGETS) for axis in AXES),
            )
            for key, registry in keys:
                # Whether a name is in a registry is what has it look.
                _ = isinstance(variant.get(key), str) and variant[key] in registry
