"""Bundles that lie: changed, and sealed again, so that every size and digest fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wanc.runtime import safetensors
from wanc.runtime.safetensors import SafetensorsFile

Json = Any
Change = Callable[[Path, Json], None]
"""Is given a bundle's folder and its manifest, and changes them."""


def seal_again(root: Path, change: Change) -> None:
    """Change a bundle, and give the manifest the sizes and digests of what is there then."""
    path = root / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(root, manifest)
    for entry in manifest["files"]:
        data = (root / entry["path"]).read_bytes()
        entry.update(size=len(data), sha256=f"sha256:{hashlib.sha256(data).hexdigest()}")
    path.write_text(json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def put(*keys: str | int, value: Json) -> Change:
    """Put a value into the manifest."""

    def change(_: Path, manifest: Json) -> None:
        inner = manifest
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


def drop(*keys: str | int) -> Change:
    """Take a value out of the manifest."""

    def change(_: Path, manifest: Json) -> None:
        inner = manifest
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]

    return change


def both(*changes: Change) -> Change:
    def change(root: Path, manifest: Json) -> None:
        for one in changes:
            one(root, manifest)

    return change


def without_engines(component: str, graph: str | None = None) -> Change:
    """No engine for a component, or for one of its graphs, nor a word of it in the topology and in the record."""

    def change(root: Path, manifest: Json) -> None:
        topology = manifest["topology"]
        topology["engines"] = [
            entry
            for entry in topology["engines"]
            if entry["component"] != component or entry["graph"] != (graph or entry["graph"])
        ]
        if graph is None:
            del topology["components"][component]
        else:
            del topology["components"][component][graph]
        prefix = f"{component}/{graph}/" if graph else f"{component}/"
        for name in ("inputs", "expected"):
            rewrite(f"golden/{name}.safetensors", lambda found: _without(found, prefix))(root, manifest)
        rewrite_json("golden/tolerances.json", lambda found: _without(found, prefix.rstrip("/")))(root, manifest)

    return change


def _without(found: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if not name.startswith(prefix)}


def rewrite(path: str, change: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]) -> Change:
    """Other tensors in a safetensors file."""

    def changed(root: Path, _: Json) -> None:
        file = SafetensorsFile(root / path)
        tensors = change({name: np.array(array) for name, array in file.items()})
        (root / path).unlink()
        safetensors.write(root / path, tensors)

    return changed


def rewrite_json(path: str, change: Callable[[Json], Json]) -> Change:
    """Another value in a JSON file."""

    def changed(root: Path, _: Json) -> None:
        document = json.loads((root / path).read_bytes())
        (root / path).write_text(json.dumps(change(document), ensure_ascii=False))

    return changed
