"""A bundle: what its manifest says, and its program. Nothing is verified here: that is what `wanc verify` does."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from wanc.compiler.program.program import FILE
from wanc.inspection.program import beside, describe_content
from wanc.inspection.small_file import read_json
from wanc.runtime.manifest import MANIFEST, Manifest
from wanc.runtime.strict_json import Fields, JsonValue

LOCK = "recipe.lock.json"
_NO_PROGRAM: dict[str, Any] = {"task": None, "components": {}, "embedding": None}
_ENGINE_FIELDS = ("component", "graph", "engine", "target", "file")


def describe_bundle(root: Path) -> dict[str, Any]:
    """Raises BundleError where the manifest, the program, a graph or the lock is damaged or missing."""
    manifest = Manifest.read(root)
    listed = {file.path for file in manifest.files}
    program = describe_content(root / FILE, beside(root)) if FILE in listed else _NO_PROGRAM
    lock = read_json(root / LOCK) if LOCK in listed else {}
    return {
        "kind": "bundle",
        "path": str(root),
        "id": manifest.id,
        "is_verified": False,
        "name": manifest.name,
        "version": manifest.version,
        "created": manifest.created,
        "schema": manifest.schema,
        "requires": list(manifest.requires),
        "targets": list(manifest.targets),
        "task": program["task"],
        "size": sum(file.size for file in manifest.files),
        "components": program["components"],
        "embedding": program["embedding"],
        "engines": _engines(manifest, root),
        "runtime": dict(manifest.runtime),
        "check": dict(manifest.check),
        "provenance": {
            "recipe_sha256": manifest.recipe_sha256,
            "parents": list(manifest.parents),
            **{name: lock.get(name) for name in ("recipe", "inputs", "tools")},
        },
        "entry": manifest.entry,
        "files": [asdict(file) for file in manifest.files],
    }


def _engines(manifest: Manifest, root: Path) -> list[dict[str, JsonValue]]:
    topology = Fields(cast("JsonValue", manifest.topology), str(root / MANIFEST), "topology")
    if "engines" not in topology.values:
        return []
    engines = topology.objects("engines")
    for engine in engines:
        for name in _ENGINE_FIELDS:
            engine.text(name)
    return [engine.values for engine in engines]
