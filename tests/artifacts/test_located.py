"""Large blobs that lie outside the store are used where they are, as long as they are what they were."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from wanc.artifacts.records import ActionRecord, Blob
from wanc.artifacts.seal import BundleFacts, BundleFile, seal
from wanc.artifacts.store import DamagedBlobError, Store
from wanc.runtime.verify import verify

from .store_builder import FILES, commit, contents, stored


def test_a_sealed_blob_stays_in_the_store_by_reference(store: Store, tmp_path: Path) -> None:
    """The way of large weights: stored by a stage, adopted by the bundle, found there by the next build."""
    record = commit(store)
    blob = record.files["weights/a.safetensors"]
    facts = BundleFacts("tiny", "1.0", 0, "graph.onnx", f"sha256:{'0' * 64}", {}, {})

    def build(opened: Store) -> str:
        files = [
            BundleFile(path, opened.path(content), "test", "x/x", move=opened.is_stored(content) and content == blob)
            for path, content in record.files.items()
        ]
        sealed = seal(tmp_path / "bundle", files, facts)
        opened.relocate(blob, sealed.path / "weights/a.safetensors")
        return sealed.id

    first = build(store)
    assert not stored(store, blob).exists()
    again = Store.open(store.root)
    assert again.lookup(record.key) == record
    assert again.path(blob) == tmp_path / "bundle/weights/a.safetensors"
    assert build(again) == first == verify(tmp_path / "bundle").id
    assert verify(tmp_path / "bundle").ok
    shutil.rmtree(tmp_path / "bundle")
    assert again.lookup(record.key) is None


def test_a_located_blob_is_used_where_it_lies(store: Store, tmp_path: Path) -> None:
    record = commit(store)
    blob = record.files["weights/a.safetensors"]
    place = tmp_path / "bündle" / "weights"
    place.parent.mkdir()
    stored(store, blob).rename(place)
    assert not store.is_stored(blob)
    store.relocate(blob, place)
    fresh = Store.open(store.root)
    assert fresh.lookup(record.key) == record
    assert fresh.path(blob) == place
    assert not fresh.is_stored(blob)


def located(store: Store, tmp_path: Path) -> tuple[ActionRecord, Blob, Path]:
    record = commit(store)
    blob = record.files["weights/a.safetensors"]
    stored(store, blob).rename(tmp_path / "weights")
    (tmp_path / "weights").chmod(0o644)
    store.relocate(blob, tmp_path / "weights")
    return record, blob, tmp_path / "weights"


@pytest.mark.parametrize("data", [None, b"", b"weight", b"weights!"])
def test_a_located_blob_that_is_gone_or_has_another_size(store: Store, tmp_path: Path, data: bytes | None) -> None:
    record, _, place = located(store, tmp_path)
    place.unlink() if data is None else place.write_bytes(data)
    assert store.lookup(record.key) is None
    assert place.exists() == (data is not None)  # not ours to remove
    assert contents(store, commit(store)) == FILES


def test_a_located_blob_of_other_content(store: Store, tmp_path: Path) -> None:
    record, blob, place = located(store, tmp_path)
    place.write_bytes(b"WEIGHTS")
    assert store.lookup(record.key) == record
    with pytest.raises(DamagedBlobError):
        store.path(blob)
    assert store.lookup(record.key) is None
    assert place.read_bytes() == b"WEIGHTS"


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"path":7,"size":7}',
        b'{"path":"relative","size":7}',
        b'{"path":"/nul\\u0000","size":7}',
        '{"path":"/€","size":7}'.encode(),
        b"[" * 70000,
    ],
)
def test_a_damaged_note_of_a_place_is_a_miss(store: Store, tmp_path: Path, note: bytes) -> None:
    record, blob, _ = located(store, tmp_path)
    (store.root / "located" / f"{blob.hex}.json").write_bytes(note)
    assert store.lookup(record.key) is None


def test_places_may_have_any_name(store: Store, tmp_path: Path) -> None:
    record, blob, place = located(store, tmp_path)
    odd = tmp_path / os.fsdecode(b"\xff\n")
    place.rename(odd)
    store.relocate(blob, odd)
    assert store.lookup(record.key) == record
    assert store.path(blob) == odd
