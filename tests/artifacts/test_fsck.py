"""Checking a store: whatever is damaged is named and set aside, and what is left is true."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import Wanc
from wanc.artifacts.fsck import check
from wanc.artifacts.records import ActionRecord
from wanc.artifacts.seal import BundleFile, seal
from wanc.artifacts.store import Store
from wanc.errors import UserError

from .seal_builder import FACTS
from .seal_builder import files as small_files
from .store_builder import FILES, commit, contents, quarantined, stored

TOTAL = sum(map(len, FILES.values()))


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def findings(store: Store) -> dict[str, str]:
    checkup = check(store.root)
    assert checkup.ok == (not checkup.findings)
    return {finding.path: finding.reason for finding in checkup.findings}


def action(record: ActionRecord) -> str:
    return f"actions/{record.key}.json"


def assert_mended(store: Store) -> None:
    """Nothing is left to find, and the build goes on from there."""
    assert findings(store) == {}
    assert contents(Store.open(store.root), commit(store)) == FILES
    assert findings(store) == {}


def test_a_sound_store(store: Store) -> None:
    record = commit(store)
    store.set_ref("tiny", [record.key])
    checkup = check(store.root)
    assert checkup.findings == ()
    assert (checkup.records, checkup.blobs, checkup.orphans, checkup.bytes) == (1, len(FILES), 0, TOTAL)
    assert store.lookup(record.key) == record


def test_an_empty_store(store: Store) -> None:
    checkup = check(store.root)
    assert (checkup.ok, checkup.records, checkup.blobs, checkup.orphans, checkup.bytes) == (True, 0, 0, 0, 0)


def test_every_byte_is_read_again(store: Store) -> None:
    calls: list[tuple[int, int]] = []
    commit(store)  # this process knows them already
    check(store.root, progress=lambda *call: calls.append(call))
    assert calls[-1] == (TOTAL, TOTAL)
    assert calls == sorted(calls)


def test_content_without_a_record_is_no_damage(store: Store) -> None:
    record = commit(store)
    (store.root / action(record)).unlink()
    checkup = check(store.root)
    assert (checkup.ok, checkup.records, checkup.blobs, checkup.orphans) == (True, 0, len(FILES), len(FILES))


def test_a_ref_to_a_record_that_is_not_there_is_no_damage(store: Store) -> None:
    store.set_ref("tiny", ["a" * 64])
    assert findings(store) == {}


@pytest.mark.parametrize("data", [b"grapf", b"grap", b"graphs", b""])
def test_a_damaged_blob_takes_its_records_with_it(store: Store, data: bytes) -> None:
    first, second = commit(store, 0), commit(store, 1)
    other = commit(store, 2, {"a": b"other"})
    blob = first.files["graph.onnx"]
    overwrite(stored(store, blob), data)
    place = stored(store, blob).relative_to(store.root).as_posix()
    reason = "graph.onnx of stage export is damaged or gone"
    assert findings(store) == {
        place: "is not the content that its name says",
        action(first): reason,
        action(second): reason,
    }
    assert quarantined(store) == sorted([blob.hex, f"{first.key}.json", f"{second.key}.json"])
    assert store.lookup(first.key) is None
    assert store.lookup(other.key) == other
    assert_mended(store)


@pytest.mark.parametrize("kind", ["link", "hard link", "directory", "fifo"])
def test_a_blob_that_is_no_file_of_its_own(store: Store, tmp_path: Path, kind: str) -> None:
    record = commit(store)
    path = stored(store, record.files["graph.onnx"])
    path.rename(tmp_path / "outside")
    match kind:
        case "link":
            path.symlink_to(tmp_path / "outside")
        case "hard link":
            os.link(tmp_path / "outside", path)
        case "directory":
            path.mkdir()
        case _:
            os.mkfifo(path)
    assert findings(store).keys() == {path.relative_to(store.root).as_posix(), action(record)}
    assert (tmp_path / "outside").read_bytes() == b"graph"
    assert_mended(store)


def test_a_missing_blob(store: Store) -> None:
    record = commit(store)
    stored(store, record.files["graph.onnx"]).unlink()
    assert findings(store) == {action(record): "graph.onnx of stage export is damaged or gone"}
    assert_mended(store)


def test_a_stranger_among_the_blobs(store: Store) -> None:
    record = commit(store)
    stranger = store.root / "blobs/sha256/ab/notes.txt"
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_bytes(b"notes")
    misplaced = store.root / "blobs/sha256/ab" / record.files["graph.onnx"].hex
    misplaced.write_bytes(b"graph")
    assert findings(store).keys() == {path.relative_to(store.root).as_posix() for path in (stranger, misplaced)}
    assert store.lookup(record.key) == record
    assert_mended(store)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 70000])
@pytest.mark.parametrize("place", ["actions/{key}.json", "refs/tiny", "located/{hex}.json"])
def test_small_files_that_cannot_be_parsed(store: Store, place: str, data: bytes) -> None:
    record = commit(store)
    path = place.format(key=record.key, hex=record.files["graph.onnx"].hex)
    (store.root / path).write_bytes(data)
    assert findings(store).keys() == {path}
    assert quarantined(store) == [Path(path).name]
    assert_mended(store)


def test_every_flipped_bit_of_a_record_is_found(store: Store) -> None:
    record = commit(store, 0, {"a": b"a"})
    path = store.root / action(record)
    data = path.read_bytes()
    for offset in range(0, len(data), 7):
        changed = bytearray(data)
        changed[offset] ^= 1 << (offset % 8)
        path.write_bytes(changed)
        assert findings(store).keys() == {action(record)}


def test_a_record_under_another_name(store: Store) -> None:
    record = commit(store)
    (store.root / action(record)).rename(store.root / f"actions/{'f' * 64}.json")
    assert findings(store) == {f"actions/{'f' * 64}.json": "is the record of another key"}
    assert_mended(store)


def test_a_ref_that_names_no_keys(store: Store) -> None:
    (store.root / "refs/tiny").write_text('{"keys":["x"]}')
    assert findings(store) == {"refs/tiny": "keys holds something that is not 64 hex digits"}


def located(store: Store, tmp_path: Path) -> tuple[ActionRecord, str, Path]:
    record = commit(store)
    blob = record.files["weights/a.safetensors"]
    place = tmp_path / "weights"
    stored(store, blob).rename(place)
    store.relocate(blob, place)
    return record, f"located/{blob.hex}.json", place


def test_a_located_blob_is_read_where_it_lies(store: Store, tmp_path: Path) -> None:
    record, _, _ = located(store, tmp_path)
    checkup = check(store.root)
    assert (checkup.ok, checkup.records, checkup.blobs, checkup.bytes) == (True, 1, len(FILES), TOTAL)
    assert store.lookup(record.key) == record


def sealed(store: Store, destination: Path, files: Mapping[str, bytes]) -> ActionRecord:
    """A record whose content was moved into a bundle."""
    record = commit(store, len(files["weights"]) + files["weights"][0], files)
    with store.sealing() as announce:
        moving = [BundleFile(path, store.path(blob), "x", "x/x", move=True) for path, blob in record.files.items()]
        seal(destination, [*small_files(), *moving], FACTS, announce=announce)
    return record


@pytest.mark.parametrize("data", [b"WEIGHTS", b"weight", None])
def test_damage_in_a_bundle_is_found(store: Store, destination: Path, data: bytes | None) -> None:
    record = sealed(store, destination, {"weights": b"weights"})
    place = destination / "weights"
    place.unlink() if data is None else place.write_bytes(data)
    note = f"located/{record.files['weights'].hex}.json"
    assert findings(store) == {
        note: f"{place} is not the content that was stored",
        action(record): "weights of stage export is damaged or gone",
    }
    assert not place.exists() or place.read_bytes() == data, "it is not ours to move"
    assert_mended(store)


def test_a_bundle_with_a_damaged_manifest_claims_everything(store: Store, destination: Path) -> None:
    record = sealed(store, destination, {"weights": b"weights"})
    (destination / "manifest.json").write_bytes(b"{")
    assert findings(store) == {}, "the content itself is sound"
    (destination / "weights").write_bytes(b"WEIGHTS")
    assert action(record) in findings(store)


@pytest.mark.parametrize("how", ["replaced", "replaced by another size", "deleted"])
def test_a_bundle_that_is_no_more_is_no_damage(store: Store, destination: Path, how: str) -> None:
    old = sealed(store, destination, {"weights": b"weights"})
    if how == "deleted":
        shutil.rmtree(destination)
        new = None
    else:
        new = sealed(store, destination, {"weights": b"WEIGHTS" if how == "replaced" else b"longer weights"})
    checkup = check(store.root)
    assert (checkup.findings, checkup.outdated, checkup.records) == ((), 1, 0 if new is None else 1)
    assert "1 outdated: their files were in bundles that were deleted or replaced" in checkup.as_text()
    assert store.lookup(old.key) is None
    assert new is None or store.lookup(new.key) == new
    assert check(store.root).outdated == 0


def test_content_that_is_nowhere_is_damage(store: Store, tmp_path: Path) -> None:
    record, note, place = located(store, tmp_path)
    place.unlink()
    (store.root / note).unlink()
    assert findings(store) == {action(record): "weights/a.safetensors of stage export is damaged or gone"}
    assert_mended(store)


def test_a_note_beside_stored_content_is_of_no_concern(store: Store, tmp_path: Path) -> None:
    """A seal leaves one when it is killed before it moves anything."""
    record = commit(store)
    store.relocate(record.files["graph.onnx"], tmp_path / "nowhere")
    (tmp_path / "other").write_bytes(b"GRAPH")
    store.relocate(record.files["graph.onnx"], tmp_path / "other")
    assert findings(store) == {}
    assert contents(Store.open(store.root), record) == FILES


def test_another_version_is_not_checked(store: Store) -> None:
    (store.root / "VERSION").write_text("wanc-store 2\n")
    with pytest.raises(UserError, match="says 'wanc-store 2', not 'wanc-store 1'"):
        check(store.root)


def test_builds_wait_for_a_check(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    commit(store)
    tried: list[int] = []

    def on_bytes(done: int, total: int) -> None:
        with pytest.raises(UserError), store.session(on_wait=lambda _: None):
            pass
        tried.append(done)

    check(store.root, progress=on_bytes)
    assert tried
    lines: list[str] = []
    with store.session(), pytest.raises(UserError):
        check(store.root, on_wait=lines.append)
    assert len(lines) == 1


@pytest.mark.parametrize("kind", ["blob", "record", "sound"])
def test_the_verb_says_no_when_it_found_something(wanc: Wanc, tmp_path: Path, kind: str) -> None:
    store = Store.open(tmp_path / "store")
    record = commit(store, 0, {"a": b"a"})
    blob = stored(store, record.files["a"])
    if kind == "blob":
        overwrite(blob, b"b")
    elif kind == "record":
        (store.root / action(record)).write_bytes(b"{")
    finished = wanc("store", "fsck", "-o", tmp_path)
    place = blob.relative_to(store.root)
    expected = {
        "blob": (
            f"{action(record)}: a of stage export is damaged or gone\n"
            f"{place}: is not the content that its name says\n"
            "2 damaged, set aside in quarantine/: a build makes them again\n"
            "0 records and 0 blobs are sound, 0.0 MiB read\n"
        ),
        "record": (
            f"{action(record)}: not JSON: Expecting property name enclosed in double quotes\n"
            "1 damaged, set aside in quarantine/: a build makes them again\n"
            "0 records and 1 blob (1 of them named by no record) are sound, 0.0 MiB read\n"
        ),
        "sound": "1 record and 1 blob are sound, 0.0 MiB read\n",
    }
    assert (finished.code, finished.out, finished.err) == (int(kind != "sound"), expected[kind], "")
    again = json.loads(wanc("store", "fsck", "-o", tmp_path, "--json").out)
    assert again == {
        "ok": True,
        "findings": [],
        "outdated": 0,
        "records": int(kind == "sound"),
        "blobs": int(kind != "blob"),
        "orphans": int(kind == "record"),
        "bytes": int(kind != "blob"),
    }


def test_the_verb_lists_findings_for_programs(wanc: Wanc, tmp_path: Path) -> None:
    Store.open(tmp_path / "store")
    (tmp_path / "store/refs/tiny").write_bytes(b"{")
    finished = wanc("store", "fsck", "-o", tmp_path, "--json")
    assert finished.code == 1
    assert json.loads(finished.out)["findings"] == [
        {"path": "refs/tiny", "reason": "not JSON: Expecting property name enclosed in double quotes"}
    ]
