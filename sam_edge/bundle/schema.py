"""Validates JSON against the parts of JSON Schema (draft 2020-12) that manifests and reports need.

The runtime depends on nothing but NumPy, so this stands in for a library; tests compare it with the
`jsonschema` package.
"""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _has_pattern(value: str, pattern: str) -> bool:
    """Whether a regular expression as in JSON Schema is found: its "$" is the end, not a last line's."""
    return re.search(re.sub(r"\$$", r"\\Z", pattern), value) is not None


def validate(
    value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None, where: str = "manifest"
) -> None:
    """Raise ValueError, naming the place, unless `value` is valid under `schema`."""
    root = schema if root is None else root
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        validate(value, root["$defs"][name], root, where)
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not any(_is(value, name) for name in names):
            raise ValueError(f"{where} should be {' or '.join(names)}, not {value!r:.60}")
    if "const" in schema and (value != schema["const"] or isinstance(value, bool)):
        raise ValueError(f"{where} should be {schema['const']!r}, not {value!r:.60}")
    if "enum" in schema and value not in schema["enum"]:
        raise ValueError(f"{where} should be one of {schema['enum']}, not {value!r:.60}")
    if "pattern" in schema and isinstance(value, str) and not _has_pattern(value, schema["pattern"]):
        raise ValueError(f"{where} should match {schema['pattern']}, not {value!r:.60}")
    if "minimum" in schema and _is(value, "number") and value < schema["minimum"]:
        raise ValueError(f"{where} should be at least {schema['minimum']}, not {value}")
    if "maximum" in schema and _is(value, "number") and value > schema["maximum"]:
        raise ValueError(f"{where} should be at most {schema['maximum']}, not {value}")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            raise ValueError(f"{where} has the wrong number of items, {len(value)}")
        for index, item in enumerate(value):
            validate(item, schema.get("items", {}), root, f"{where}[{index}]")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name in schema.get("required", []):
            if name not in value:
                raise ValueError(f"{where} lacks {name!r}")
        others = schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in properties:
                validate(item, properties[name], root, f"{where}.{name}")
            elif isinstance(others, dict):
                validate(item, others, root, f"{where}.{name:.60}")
            elif others is False:
                raise ValueError(f"{where} has an unknown key {name!r:.60}")
