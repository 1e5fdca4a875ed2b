"""Committing to a store and looking into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wanc.artifacts.canonical import key_of
from wanc.artifacts.records import ActionRecord, Blob
from wanc.artifacts.store import Store
from wanc.runtime.strict_json import JsonObject

FILES = {"graph.onnx": b"graph", "weights/a.safetensors": b"weights", "empty": b""}


def document(seed: int = 0) -> JsonObject:
    return {"stage": "export", "seed": seed, "tools": {"onnx": "1.23.2"}}


def commit(store: Store, seed: int = 0, files: Mapping[str, bytes] = FILES) -> ActionRecord:
    with store.workdir() as workdir:
        for path, data in files.items():
            target = workdir / "out" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        (workdir / "out").mkdir(exist_ok=True)
        return store.commit(
            key_of(document(seed)),
            stage="export",
            document=document(seed),
            tree=workdir / "out",
            meta={"seconds": 1.5, "peak_rss_bytes": 2**30},
        )


def stored(store: Store, blob: Blob) -> Path:
    return store.root / "blobs/sha256" / blob.hex[:2] / blob.hex


def quarantined(store: Store) -> list[str]:
    return sorted(path.name.rsplit(".", 1)[0] for path in (store.root / "quarantine").iterdir())


def contents(store: Store, record: ActionRecord) -> dict[str, bytes]:
    return {path: store.path(blob).read_bytes() for path, blob in record.files.items()}
