"""The store: a hit is whole, everything else is a miss, and nothing is computed twice at once."""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from wanc.artifacts import store as store_module
from wanc.artifacts.canonical import canonical, key_of
from wanc.artifacts.records import ActionRecord, Blob
from wanc.artifacts.store import DamagedBlobError, Store
from wanc.compiler.program import laid_out as laid_out_module
from wanc.compiler.program.laid_out import laid_out
from wanc.errors import EXIT_DATA, BundleError
from wanc.runtime.safe_read import OnBytes
from wanc.runtime.strict_json import JsonObject

from .store_builder import FILES, commit, contents, document, quarantined, stored


def test_what_is_committed_is_found(store: Store) -> None:
    record = commit(store)
    assert store.lookup(record.key) == record
    again = Store.open(store.root)
    found = again.lookup(record.key)
    assert found == record
    assert found
    assert contents(again, found) == FILES
    assert (found.stage, found.document, found.meta["seconds"]) == ("export", document(), 1.5)
    assert list(again.records()) == [record]


def test_what_was_never_committed_is_a_silent_miss(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    assert store.lookup("0" * 64) is None
    assert caplog.text == ""


def test_a_stage_may_make_nothing(store: Store) -> None:
    assert store.lookup(commit(store, files={}).key) is not None


def test_blobs_are_read_only_and_named_by_their_digest(store: Store) -> None:
    for blob in commit(store).files.values():
        assert stored(store, blob).stat().st_mode & 0o7777 == 0o444
        assert stored(store, blob).stat().st_nlink == 1
        assert store.is_stored(blob)


def test_the_workdir_is_gone_afterwards(store: Store) -> None:
    commit(store)
    assert list((store.root / "tmp").iterdir()) == []
    with pytest.raises(RuntimeError), store.workdir() as workdir:
        (workdir / "half").write_bytes(b"")
        raise RuntimeError
    assert list((store.root / "tmp").iterdir()) == []


def test_one_content_is_stored_once(store: Store) -> None:
    first, second = commit(store, 0), commit(store, 1)
    assert first.files == second.files
    assert len([path for path in (store.root / "blobs").rglob("*") if path.is_file()]) == len(FILES)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"{}", b"null"])
def test_a_torn_record_is_a_miss(store: Store, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    record = commit(store)
    (store.root / "actions" / f"{record.key}.json").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert store.lookup(record.key) is None
    assert "set aside" in caplog.text
    assert quarantined(store) == [f"{record.key}.json"]
    assert store.lookup(record.key) is None
    assert commit(store) == record == store.lookup(record.key)


def test_every_flipped_bit_of_a_record_is_a_miss(store: Store) -> None:
    record = commit(store)
    path = store.root / "actions" / f"{record.key}.json"
    data = path.read_bytes()
    for offset in range(len(data)):
        changed = bytearray(data)
        changed[offset] ^= 1 << (offset % 8)
        with pytest.raises(BundleError):
            ActionRecord.parse(bytes(changed), where="record")
    path.write_bytes(data[: len(data) // 2])
    assert store.lookup(record.key) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "../../etc/passwd"},
        {"schema": "wanc.action/2"},
        {"stage": 7},
        {"files": [{"path": "../x", "digest": f"sha256:{'0' * 64}", "size": 0}]},
        {"files": [{"path": "x", "digest": "sha256:../../x", "size": 0}]},
        {"meta": {"seconds": 2**53}},
    ],
)
def test_records_that_were_never_written_here(store: Store, changes: JsonObject) -> None:
    record = commit(store)
    path = store.root / "actions" / f"{record.key}.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))
    assert store.lookup(record.key) is None


def test_a_record_under_another_name_is_a_miss(store: Store) -> None:
    record = commit(store)
    other = "f" * 64
    (store.root / "actions" / f"{record.key}.json").rename(store.root / "actions" / f"{other}.json")
    assert store.lookup(other) is None
    assert quarantined(store) == [f"{other}.json"]


def test_a_missing_blob_is_a_miss(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    record = commit(store)
    stored(store, record.files["graph.onnx"]).unlink()
    with caplog.at_level(logging.WARNING):
        assert store.lookup(record.key) is None
    assert "graph.onnx of stage export is gone" in caplog.text
    assert quarantined(store) == [f"{record.key}.json"]
    assert contents(store, commit(store)) == FILES


@pytest.mark.parametrize("data", [b"", b"grap", b"graphs"])
def test_a_mis_sized_blob_is_a_miss(store: Store, data: bytes) -> None:
    record = commit(store)
    blob = record.files["graph.onnx"]
    stored(store, blob).chmod(0o644)
    stored(store, blob).write_bytes(data)
    assert store.lookup(record.key) is None
    assert quarantined(store) == sorted([blob.hex, f"{record.key}.json"])
    assert contents(store, commit(store)) == FILES


@pytest.mark.parametrize("kind", ["link", "hard link", "directory"])
def test_a_blob_that_is_no_file_of_its_own_is_a_miss(store: Store, tmp_path: Path, kind: str) -> None:
    record = commit(store)
    path = stored(store, record.files["graph.onnx"])
    if kind == "hard link":
        os.link(path, tmp_path / "outside")
    else:
        path.unlink()
        (tmp_path / "outside").write_bytes(b"graph")
        path.symlink_to(tmp_path / "outside") if kind == "link" else path.mkdir()
    assert store.lookup(record.key) is None
    assert contents(store, commit(store)) == FILES


@pytest.fixture
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is laid out is linked."""
    monkeypatch.setattr(laid_out_module, "COPIED_BYTES", -1)


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize("also_outside", [False, True])
def test_a_blob_that_a_stage_has_laid_out_is_no_damaged_one(store: Store, tmp_path: Path, also_outside: bool) -> None:
    """For a build beside that stage. A name that is not the store's own is one too many, as ever."""
    record = commit(store)
    blob = record.files["graph.onnx"]
    with store.workdir() as workdir, laid_out({"a/model.onnx": store.path(blob)}, workdir) as folder:
        assert (folder / "a/model.onnx").samefile(stored(store, blob)), "it is not copied"
        if also_outside:
            os.link(stored(store, blob), tmp_path / "outside")
        assert (Store.open(store.root).lookup(record.key) is None) is also_outside
    if not also_outside:
        assert stored(store, blob).stat().st_nlink == 1
        assert contents(store, record) == FILES


@pytest.mark.usefixtures("all_are_large")
def test_stages_that_lay_out_the_same_file_all_the_time_lose_nothing(store: Store) -> None:
    record = commit(store)
    files = {path: store.path(blob) for path, blob in record.files.items()}
    ended = Event()

    def lay_out() -> int:
        count = 0
        with store.workdir() as workdir:
            while not ended.is_set():
                with laid_out(files, workdir):
                    count += 1
        return count

    with ThreadPoolExecutor(3) as threads:
        busy = [threads.submit(lay_out) for _ in range(3)]
        try:
            found = [Store.open(store.root).lookup(record.key) for _ in range(200)]
        finally:
            ended.set()
        assert all(one.result() > 1 for one in busy)
    assert found == [record] * 200
    assert quarantined(store) == []


def test_a_corrupt_blob_is_found_on_use_and_then_is_a_miss(store: Store) -> None:
    record = commit(store)
    blob = record.files["graph.onnx"]
    stored(store, blob).chmod(0o644)
    stored(store, blob).write_bytes(b"grapf")
    stored(store, blob).chmod(0o444)  # a mode proves nothing
    fresh = Store.open(store.root)
    assert fresh.lookup(record.key) == record
    with pytest.raises(DamagedBlobError) as caught:
        fresh.path(blob)
    assert caught.value.exit_code == EXIT_DATA
    assert caught.value.hint and "run the build again" in caught.value.hint
    assert fresh.lookup(record.key) is None
    assert quarantined(store) == sorted([blob.hex, f"{record.key}.json"])
    assert contents(fresh, commit(fresh)) == FILES


def test_committing_again_mends_a_corrupt_blob(store: Store) -> None:
    blob = commit(store, 0).files["graph.onnx"]
    stored(store, blob).chmod(0o644)
    stored(store, blob).write_bytes(b"grapf")
    commit(store, 1)
    assert Store.open(store.root).path(blob).read_bytes() == b"graph"


def test_digests_are_checked_once_per_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record = commit(store)
    hashed: list[Path] = []
    original = store_module.hash_file

    def spy(path: Path, on_bytes: OnBytes | None = None) -> tuple[str, int]:
        hashed.append(path)
        return original(path, on_bytes)

    monkeypatch.setattr(store_module, "hash_file", spy)
    contents(store, record)
    assert hashed == []  # this process wrote them
    fresh = Store.open(store.root)
    contents(fresh, record)
    contents(fresh, record)
    assert len(hashed) == len(FILES)


def test_a_missing_blob_on_use(store: Store) -> None:
    with pytest.raises(DamagedBlobError, match="gone from the store"):
        store.path(Blob(f"sha256:{'0' * 64}", 1))


def test_progress_is_in_bytes(store: Store) -> None:
    blob = commit(store).files["weights/a.safetensors"]
    counted: list[int] = []
    Store.open(store.root).path(blob, counted.append)
    assert sum(counted) == len(b"weights")
    with store.workdir() as workdir:
        (workdir / "out").mkdir()
        (workdir / "out/file").write_bytes(b"123")
        store.commit(
            key_of(document(1)),
            stage="export",
            document=document(1),
            tree=workdir / "out",
            meta={},
            on_bytes=counted.append,
        )
    assert sum(counted) == len(b"weights123")


@pytest.mark.parametrize("key", ["", "0" * 63, "0" * 65, "A" * 64, "../" + "0" * 61, "0" * 64 + "\n"])
def test_keys_that_are_none(store: Store, key: str) -> None:
    with pytest.raises(ValueError):
        store.lookup(key)
    with pytest.raises(ValueError), store.action_lock(key):
        pass
    with pytest.raises(ValueError):
        store.set_ref("latest", [key])


def test_a_key_must_be_that_of_its_document(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the key of its document"):
        store.commit("0" * 64, stage="export", document=document(), tree=tmp_path, meta={})


@pytest.mark.parametrize("kind", ["link", "linked directory", "hard link", "fifo", "hidden", "case twin"])
def test_trees_that_a_stage_must_not_make(store: Store, kind: str) -> None:
    key = key_of(document())
    with store.workdir() as workdir, pytest.raises(ValueError):
        tree = workdir / "out"
        tree.mkdir()
        (workdir / "elsewhere").mkdir()
        (tree / "file").write_bytes(b"")
        if kind == "link":
            (tree / "link").symlink_to("file")
        elif kind == "linked directory":
            (tree / "link").symlink_to(workdir / "elsewhere")
        elif kind == "hard link":
            os.link(tree / "file", tree / "other")
        elif kind == "fifo":
            os.mkfifo(tree / "fifo")
        else:
            (tree / {"hidden": ".file.swp", "case twin": "FILE"}[kind]).write_bytes(b"")
        store.commit(key, stage="export", document=document(), tree=tree, meta={})
    assert store.lookup(key) is None


def test_facts_that_json_cannot_say(store: Store) -> None:
    with store.workdir() as workdir, pytest.raises(ValueError):
        store.commit(key_of(document()), stage="e", document=document(), tree=workdir, meta={"seconds": float("nan")})


def test_refs(store: Store) -> None:
    keys = [commit(store, seed).key for seed in (0, 1)]
    store.set_ref("tiny-1.0", keys)
    store.set_ref("tiny-1.0", keys[::-1])
    assert json.loads((store.root / "refs/tiny-1.0").read_bytes()) == {"keys": sorted(keys)}
    for name in ("../x", ".x", "", "a/b"):
        with pytest.raises(ValueError):
            store.set_ref(name, keys)


def test_records_skip_what_is_damaged(store: Store) -> None:
    kept, torn = commit(store, 0), commit(store, 1)
    (store.root / "actions" / f"{torn.key}.json").write_bytes(b"{")
    (store.root / "actions" / "notes.txt").write_bytes(b"")
    assert list(store.records()) == [kept]


def test_the_record_on_disk(store: Store) -> None:
    """The stored form is a format: a change needs a new schema or a new VERSION."""
    record = commit(store)
    data = (store.root / "actions" / f"{record.key}.json").read_bytes()
    assert data == canonical(json.loads(data))
    assert sorted(json.loads(data)) == ["checksum", "document", "files", "key", "meta", "schema", "stage"]


def test_scratch_is_there_again_until_it_is_dropped(store: Store) -> None:
    key, other = key_of(document(0)), key_of(document(1))
    (store.scratch(key) / "clip-0").write_bytes(b"finished")
    (store.scratch(other) / "clip-0").write_bytes(b"another's")
    fresh = Store.open(store.root)
    assert (fresh.scratch(key) / "clip-0").read_bytes() == b"finished"
    fresh.drop_scratch(key)
    assert list(fresh.scratch(key).iterdir()) == []
    assert (fresh.scratch(other) / "clip-0").read_bytes() == b"another's"


def test_scratch_of_a_key_that_is_none(store: Store) -> None:
    for name in ("", "..", "../blobs", "A" * 64):
        with pytest.raises(ValueError):
            store.scratch(name)
        with pytest.raises(ValueError):
            store.drop_scratch(name)
    assert list((store.root / "scratch").iterdir()) == []


def test_a_workdir_that_leads_to_scratch_goes_without_it(store: Store) -> None:
    """What a stage that was stopped had finished lies behind a link of its working directory."""
    key = key_of(document())
    (store.scratch(key) / "clip-0").write_bytes(b"finished")
    with store.workdir() as workdir:
        (workdir / "scratch").symlink_to(store.scratch(key))
    assert not workdir.exists()
    assert (store.scratch(key) / "clip-0").read_bytes() == b"finished"
