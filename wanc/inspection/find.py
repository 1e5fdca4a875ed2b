"""What a path or a key leads to: a bundle, a program, a graph, a checkpoint, tensors, or an entry of the store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wanc.artifacts.files import opened_input
from wanc.artifacts.records import is_key
from wanc.compiler.program.program import FILE
from wanc.errors import EXIT_DATA, EXIT_NO_INPUT, UserError
from wanc.inspection.bundle import describe_bundle
from wanc.inspection.checkpoint import describe_checkpoint
from wanc.inspection.graph import describe_graph
from wanc.inspection.program import describe_program
from wanc.inspection.small_file import read_json
from wanc.inspection.stored import LEAST_PREFIX, describe_action, describe_blob, describe_key
from wanc.inspection.tensors import describe_safetensors
from wanc.models.wan.layout_diffusers import is_diffusers
from wanc.models.wan.layout_original import is_original
from wanc.runtime.manifest import MANIFEST, MARKER

Describe = Callable[[Path], dict[str, Any]]

# The first of these names in a folder says what it is.
FOLDERS: Mapping[str, Describe] = {
    MARKER: describe_bundle,
    MANIFEST: describe_bundle,
    FILE: lambda folder: describe_program(folder / FILE),
}
# What the `schema` of a JSON file begins with.
SCHEMAS: Mapping[str, Describe] = {
    "wanc.manifest/": lambda path: describe_bundle(path.parent),
    "wanc.program/": describe_program,
    "wanc.action/": describe_action,
}
WANTED = (
    "give the folder of a bundle or a checkpoint, a program.json, an .onnx or .safetensors file, or a key in the store"
)


def inspect(target: str, output: Path, store: Path | None = None) -> dict[str, Any]:
    """Describe what `target` names: a path, or the first digits of a key in a store, by default `output`'s.

    The result is JSON; `kind` says what it describes. Raises UserError where there is nothing, where it is nothing
    that can be described, and where it is damaged.
    """
    path = Path(target)  # asked through os.path, which answers no where pathlib raises
    if os.path.isdir(path):
        return _folder(path)
    if os.path.lexists(path):
        return _stored_blob(path) or _file(path)
    if re.fullmatch(rf"[0-9a-f]{{{LEAST_PREFIX},64}}", target):
        return describe_key(store or output / "store", target)
    raise UserError("there is no such file or folder", where=target, hint=WANTED, exit_code=EXIT_NO_INPUT)


def _folder(path: Path) -> dict[str, Any]:
    for name, describe in FOLDERS.items():
        if os.path.exists(path / name):
            return describe(path)
    if is_diffusers(path) or is_original(path):
        return describe_checkpoint(path)
    holds_actions = any(os.path.isdir(path / name) for name in ("actions", "store"))
    hint = "`wanc store ls` lists a store; give one of its keys" if holds_actions else WANTED
    raise UserError(
        "is not the folder of a bundle, a program or a checkpoint", where=str(path), hint=hint, exit_code=EXIT_DATA
    )


def _stored_blob(path: Path) -> dict[str, Any] | None:
    """A blob of a store, and its content as far as it is understood; None for any other file."""
    parents = [parent.name for parent in path.absolute().parents[:3]]
    if not is_key(path.name) or parents != [path.name[:2], "sha256", "blobs"]:
        return None
    with opened_input(path):
        described = describe_blob(path)
    try:
        return {**described, "content": _file(path)}
    except UserError:
        return {**described, "content": None}


def _file(path: Path) -> dict[str, Any]:
    with opened_input(path) as descriptor:
        head, size = os.read(descriptor, 9), os.fstat(descriptor).st_size
    # A safetensors file begins with its header's length, eight bytes, and the header with a brace.
    is_safetensors = head[8:] == b"{" and int.from_bytes(head[:8], "little") < size
    if is_safetensors or path.suffix == ".safetensors":
        return describe_safetensors(path)
    if head[:1] == b"{" or path.suffix == ".json":
        return _json(path)
    return describe_graph(path)


def _json(path: Path) -> dict[str, Any]:
    schema = str(read_json(path).get("schema"))
    for prefix, describe in SCHEMAS.items():
        if schema.startswith(prefix):
            return describe(path)
    raise UserError(
        "is JSON, but neither a program nor a manifest nor an action", where=str(path), hint=WANTED, exit_code=EXIT_DATA
    )
