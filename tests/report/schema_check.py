"""As much of JSON Schema as the report's uses; whatever else it may use one day is an error here."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "null": type(None),
    "boolean": bool,
}
SILENT = {"title", "description", "default", "$defs", "$schema", "$id"}
KNOWN = {"$ref", "anyOf", "type", "const", "enum", "pattern", "properties", "required", "additionalProperties", "items"}


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], place: str = "$") -> list[str]:
    """What is wrong with a value, each with its place."""
    unknown = schema.keys() - SILENT - KNOWN
    assert not unknown, f"{place}: {unknown}"
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, place)
    if "anyOf" in schema:
        found = [faults(value, one, root, place) for one in schema["anyOf"]]
        return [] if [] in found else min(found, key=len)
    wrong: list[str] = []
    if "type" in schema and (
        not isinstance(value, TYPES[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean")
    ):
        return [f"{place} is no {schema['type']}"]
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        wrong.append(f"{place} is {value!r}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        wrong.append(f"{place} is {value!r}")
    if isinstance(value, dict):
        wrong += _object_faults(value, schema, root, place)
    if isinstance(value, list):
        for index, item in enumerate(value):
            wrong += faults(item, schema["items"], root, f"{place}[{index}]")
    return wrong


def _object_faults(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], place: str) -> list[str]:
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    wrong = [f"{place}.{name} is missing" for name in schema.get("required", []) if name not in value]
    for name, item in value.items():
        if name in properties:
            wrong += faults(item, properties[name], root, f"{place}.{name}")
        elif isinstance(others, dict):
            wrong += faults(item, others, root, f"{place}.{name}")
        elif not others:
            wrong.append(f"{place}.{name} is unknown")
    return wrong
