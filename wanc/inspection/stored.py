"""What a store holds under a key, or as one blob. The store is only read: nothing is set aside or swept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wanc.artifacts.canonical import digest_of
from wanc.artifacts.located import Located
from wanc.artifacts.records import ActionRecord, Blob
from wanc.artifacts.refs import read_ref
from wanc.compiler.program.program import FILE
from wanc.errors import EXIT_NO_INPUT, UserError
from wanc.inspection.program import describe_content
from wanc.inspection.small_file import read_small

LEAST_PREFIX = 4
_SHOWN = 16  # digits of a key


def describe_key(store: Path, prefix: str) -> dict[str, Any]:
    """The action whose key begins with these digits. Raises UserError where there is none, or more than one."""
    found = _names(store / "actions", f"{prefix}*.json")
    if not found:
        raise UserError(
            f"no action's key begins with {prefix}",
            where=str(store),
            hint="`wanc store ls` lists them" if os.path.isdir(store / "actions") else "there is no store here: use -o",
            exit_code=EXIT_NO_INPUT,
        )
    if len(found) > 1:
        keys = ", ".join(path.stem[:_SHOWN] for path in found[:8])
        raise UserError(f"{len(found)} keys begin with {prefix}", where=str(store), hint=f"they are {keys}")
    return describe_action(found[0])


def describe_action(path: Path) -> dict[str, Any]:
    """An action record: what was made, of what, and where it lies now. Raises UserError where it is damaged."""
    record = ActionRecord.parse(read_small(path), where=str(path))
    store = path.absolute().parent.parent
    files = [_file(store, name, blob) for name, blob in sorted(record.files.items())]
    document = record.document
    return {
        "kind": "action",
        "path": str(path),
        "stage": record.stage,
        "key": record.key,
        "inputs": _inputs(store, document.get("inputs")),
        "parameters": document.get("parameters"),
        "tools": document.get("tools"),
        "platform": document.get("platform"),
        "code": document.get("code"),
        "meta": dict(record.meta),
        "kept_by": _refs(store, record.key),
        "size": sum(blob.size for blob in record.files.values()),
        "files": files,
        "program": _program(store, record),
    }


def describe_blob(path: Path) -> dict[str, Any]:
    """A file of the store, by the records that name it. Its digest is the one that it is named by, not checked."""
    store, hex_digest = path.absolute().parents[3], path.name
    size = path.stat().st_size
    named_by = [
        {"stage": record.stage, "key": record.key, "path": name}
        for record in _records(store)
        for name, blob in sorted(record.files.items())
        if blob.hex == hex_digest
    ]
    return {"kind": "blob", "path": str(path), "digest": f"sha256:{hex_digest}", "size": size, "named_by": named_by}


def _file(store: Path, name: str, blob: Blob) -> dict[str, Any]:
    where = _find(store, blob)
    return {"path": name, "digest": blob.digest, "size": blob.size, "found": str(where) if where else None}


def _find(store: Path, blob: Blob) -> Path | None:
    stored = store / "blobs/sha256" / blob.hex[:2] / blob.hex
    if os.path.isfile(stored) and os.path.getsize(stored) == blob.size:
        return stored
    return Located(store / "located").find(blob)


def _inputs(store: Path, inputs: object) -> dict[str, Any]:
    """Each input's digest, and the action of this store that made it, if one did."""
    if not isinstance(inputs, dict):
        return {}
    made: dict[str, ActionRecord] = {}
    for record in _records(store):
        made[digest_of({name: blob.digest for name, blob in record.files.items()})] = record
    described: dict[str, Any] = {}
    for name, digest in inputs.items():
        maker = made.get(str(digest))
        described[str(name)] = {"digest": digest, "stage": maker and maker.stage, "key": maker and maker.key}
    return described


def _program(store: Path, record: ActionRecord) -> dict[str, Any] | None:
    """The program among the files, where there is one and it is still there."""
    path = _find(store, record.files[FILE]) if FILE in record.files else None
    if path is None:
        return None
    return describe_content(path, lambda name: _find(store, record.files[name]) if name in record.files else None)


def _records(store: Path) -> Iterator[ActionRecord]:
    """The records that can be read; the others are for `wanc store fsck`."""
    for path in _names(store / "actions", "*.json"):
        try:
            yield ActionRecord.parse(read_small(path), where=str(path))
        except UserError:
            continue


def _refs(store: Path, key: str) -> list[str]:
    names: list[str] = []
    for path in _names(store / "refs", "*"):
        try:
            keys = read_ref(path)
        except (OSError, UserError):
            continue
        if key in keys:
            names.append(path.name)
    return names


def _names(folder: Path, pattern: str) -> list[Path]:
    """What is in a folder of the store; nothing where there is none. Raises UserError where it may not be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError as error:
        raise UserError("cannot be read", where=str(folder), exit_code=EXIT_NO_INPUT) from error
