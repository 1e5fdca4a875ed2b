"""The store: a hit is whole, everything else is a miss, and nothing is computed twice at once."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from wanc.artifacts import store as store_module
from wanc.artifacts.canonical import canonical, key_of
from wanc.artifacts.locks import held
from wanc.artifacts.records import ActionRecord, Blob
from wanc.artifacts.seal import BundleFacts, BundleFile, seal
from wanc.artifacts.store import DamagedBlobError, Store
from wanc.errors import EXIT_DATA, EXIT_IO, BundleError, OutputError, UserError
from wanc.runtime.safe_read import OnBytes
from wanc.runtime.strict_json import JsonObject
from wanc.runtime.verify import verify

from .builder import ROOT

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


def test_opening_sweeps_what_the_dead_left(store: Store) -> None:
    (store.root / "tmp/dead/out").mkdir(parents=True)
    (store.root / "tmp/dead/.lock").write_bytes(b"")
    with store.workdir() as alive:
        Store.open(store.root)
        assert list((store.root / "tmp").iterdir()) == [alive]


def test_a_store_of_another_version_is_left_alone(store: Store) -> None:
    (store.root / "VERSION").write_text("wanc-store 2\n")
    with pytest.raises(UserError, match="says 'wanc-store 2', not 'wanc-store 1'") as caught:
        Store.open(store.root)
    assert caught.value.hint


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_bytes(b"")
    with pytest.raises(UserError, match="neither empty nor a store"):
        Store.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_creation_is_completed(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    Store.open(tmp_path)
    assert (tmp_path / "VERSION").read_text() == "wanc-store 1\n"


@pytest.mark.parametrize("name", ["file/store", "file"])
def test_where_no_store_can_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError) as caught:
        Store.open(tmp_path / name)
    assert caught.value.exit_code == EXIT_IO


@pytest.mark.parametrize(("kind", "warned"), [("nfs4", True), ("cifs", True), ("ext4", False)])
def test_a_network_file_system_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, warned: bool
) -> None:
    root = tmp_path / "store"
    original = Path.read_text

    def mounts(path: Path, *arguments: str, **named: str) -> str:
        if str(path) == "/proc/self/mounts":
            return f"/dev/vda / ext4 rw 0 0\nserver:/x {tmp_path} {kind} rw 0 0\nproc /proc proc rw 0 0\n"
        return original(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", mounts)
    with caplog.at_level(logging.WARNING):
        Store.open(root)
    assert ("let only one machine use it" in caplog.text) is warned


def test_sessions_are_shared_and_exclude_a_cleaning(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    gate = store.root / "locks/store"
    with store.session(), Store.open(store.root).session(), pytest.raises(UserError), held(gate):
        pass
    with held(gate), pytest.raises(UserError), store.session():
        pass


BUILD = """
import sys
from pathlib import Path
from wanc.artifacts.canonical import key_of
from wanc.artifacts.seal import BundleFacts, BundleFile, seal
from wanc.artifacts.store import Store
store = Store.open(Path(sys.argv[1]))
document = {"stage": "slow"}
key = key_of(document)
say = lambda word: print(word, flush=True)
with store.session():
    record = store.lookup(key)
    with store.action_lock(key, on_wait=lambda line: say("waiting")):
        record = store.lookup(key)
        if record is None:
            say("computing")
            sys.stdin.readline()
            with store.workdir() as workdir:
                (workdir / "out").mkdir()
                (workdir / "out/result").write_bytes(b"42")
                record = store.commit(key, stage="slow", document=document, tree=workdir / "out", meta={})
            say("computed")
    say(store.path(record.files["result"]).read_text())
"""


def test_two_processes_on_one_key_compute_once(store: Store) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", BUILD, store.root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    with start() as first:
        assert first.stdout and first.stdout.readline() == "computing\n"
        with start() as second:
            assert second.stdout and second.stdout.readline() == "waiting\n"
            out, _ = first.communicate("go\n", timeout=60)
            assert out == "computed\n42\n"
            out, _ = second.communicate(timeout=60)
            assert out == "42\n"
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_killed_computation_is_done_by_the_one_who_waited(store: Store) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BUILD, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as first:
        assert first.stdout and first.stdout.readline() == "computing\n"
        first.kill()
        first.wait(60)
    second = subprocess.run(command, input="go\n", capture_output=True, text=True, env=environment, timeout=60)
    assert second.stdout == "computing\ncomputed\n42\n"
    assert second.stderr == ""


def test_ordinary_use_imports_nothing_heavy() -> None:
    script = (
        "import sys, wanc.artifacts.seal, wanc.artifacts.sources, wanc.artifacts.why, wanc.runtime.verify;"
        "print([name for name in ('torch', 'onnx', 'numpy', 'yaml', 'pydantic') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout == "[]\n"


def test_the_record_on_disk(store: Store) -> None:
    """The stored form is a format: a change needs a new schema or a new VERSION."""
    record = commit(store)
    data = (store.root / "actions" / f"{record.key}.json").read_bytes()
    assert data == canonical(json.loads(data))
    assert sorted(json.loads(data)) == ["checksum", "document", "files", "key", "meta", "schema", "stage"]
