"""What a shell may complete: recipes, bundles, and what `--set` takes. Nothing here is slow, or imports what is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wanc.folders import Folders


def recipes(incomplete: str) -> list[str]:
    """YAML files below what is typed so far, and folders; where that is nothing, those in recipes/ as well."""
    found = _paths(incomplete, (".yaml", ".yml"))
    return found if incomplete else [*found, *_paths("recipes/", (".yaml", ".yml"))]


def bundles(incomplete: str) -> list[str]:
    """The bundles where builds go, if what is typed so far may become one of them; folders otherwise."""
    below = f"{Folders.chosen().output / 'bundles'}/"
    found = [path.rstrip("/") for path in _paths(below, ()) if path.startswith(incomplete)]
    return found or _paths(incomplete, ())


def settings(incomplete: str) -> list[str]:
    """`KEY=` for the keys of a recipe, and behind it the values that are words."""
    from wanc.recipe.json_schema import json_schema

    schema = json_schema()
    keys = dict(_keys(schema, schema["$defs"]))
    key, is_complete, _ = incomplete.partition("=")
    if not is_complete:
        return [f"{name}=" for name in keys if name.startswith(incomplete)]
    values = _values(keys.get(key, {}), schema["$defs"])
    return [word for value in values if (word := f"{key}={value}").startswith(incomplete)]


def _keys(section: Mapping[str, Any], definitions: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with its schema."""
    for name, field in section.get("properties", {}).items():
        sections = [entry for entry in _forms(field, definitions) if "properties" in entry]
        if not sections:
            yield f"{above}{name}", field
        for entry in sections:
            yield from _keys(entry, definitions, f"{above}{name}.")


def _values(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    for entry in _forms(field, definitions):
        yield from (str(value) for value in entry.get("enum", [entry["const"]] if "const" in entry else ()))
        if "items" in entry:
            yield from (f"[{value}]" for value in _values(entry["items"], definitions))
        if entry.get("type") == "boolean":
            yield from ("true", "false")


def _forms(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a field may be, its references followed."""
    for entry in field.get("anyOf") or field.get("oneOf") or [field]:
        yield definitions[entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry


def _paths(incomplete: str, suffixes: Iterable[str]) -> list[str]:
    """Folders, with a slash, and files with one of the suffixes, that begin with what is typed so far."""
    folder, slash, start = incomplete.rpartition("/")
    with suppress(OSError):
        entries = sorted(Path(f"{folder}{slash}" or ".").iterdir())
        shown = [entry for entry in entries if entry.name.startswith(start) and (start or entry.name[0] != ".")]
        return [
            f"{folder}{slash}{entry.name}{'/' if entry.is_dir() else ''}"
            for entry in shown
            if entry.is_dir() or entry.suffix in suffixes
        ]
    return []
