"""Blobs that a seal moves out of the store are never lost: not to a kill, and not to those who look meanwhile."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from wanc.artifacts import publish as publish_module
from wanc.artifacts import seal as seal_module
from wanc.artifacts.fsck import check
from wanc.artifacts.moves import JOURNAL, Move
from wanc.artifacts.records import ActionRecord
from wanc.artifacts.seal import BundleFile, Sealed, seal
from wanc.artifacts.store import Store
from wanc.errors import UserError
from wanc.runtime.verify import verify

from .builder import Break
from .seal_builder import FACTS, files
from .store_builder import commit, contents, stored
from .test_crash import in_a_child, killed

WEIGHTS = {"engines/a.bin": b"weights of a", "engines/b.bin": b"weights of b"}
OLD = {"engines/a.bin": b"WEIGHTS of a", "engines/b.bin": b"WEIGHTS of b"}


def seal_from(store: Store, record: ActionRecord, destination: Path) -> Sealed:
    """As the seal stage does: large blobs are moved, and then found in the bundle."""
    with store.sealing() as announce:
        moving = [BundleFile(path, store.path(blob), "x", "x/x", move=True) for path, blob in record.files.items()]
        return seal(destination, [*files(), *moving], FACTS, announce=announce)


def killed_seal(store: Store, record: ActionRecord, destination: Path, break_at: Break, number: int) -> None:
    break_at(number, killed)
    seal_from(store, record, destination)


def assert_whole(root: Path, record: ActionRecord, content: dict[str, bytes]) -> None:
    store = Store.open(root)
    assert store.lookup(record.key) == record
    assert contents(store, record) == content
    assert list((root / "tmp").iterdir()) == []
    assert check(root).findings == ()


def test_what_was_moved_is_found_in_the_bundle(store: Store, destination: Path) -> None:
    record = commit(store, files=WEIGHTS)
    seal_from(store, record, destination)
    assert not any(stored(store, blob).exists() for blob in record.files.values())
    assert_whole(store.root, record, WEIGHTS)
    assert {store.path(blob) for blob in record.files.values()} == {destination / path for path in WEIGHTS}


@pytest.mark.parametrize(
    ("stands", "exchange"),
    [
        pytest.param(False, True, id="first bundle"),
        pytest.param(True, True, id="in place of another", marks=pytest.mark.slow),
        pytest.param(True, False, id="in place of another in two renames", marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_every_step_of_a_seal_loses_nothing(
    quick_path: Path, break_at: Break, monkeypatch: pytest.MonkeyPatch, stands: bool, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(publish_module, "exchange", lambda *_: False)
    returned = 0
    for number in range(1, 400):
        root, destination = quick_path / str(number) / "store", quick_path / str(number) / "bundles/tiny"
        store = Store.open(root)
        old = commit(store, 0, OLD)
        record = commit(store, 1, WEIGHTS)
        if stands:
            seal_from(store, old, destination)

        status = in_a_child(functools.partial(killed_seal, store, record, destination, break_at, number))
        moved = [path for path in WEIGHTS if not stored(store, record.files[path]).exists()]
        published = destination.exists() and all((destination / path).read_bytes() == WEIGHTS[path] for path in WEIGHTS)
        returned += bool(moved) and not published
        assert_whole(root, record, WEIGHTS)
        if destination.exists():
            assert verify(destination).ok
        else:
            assert not published and (not stands or not exchange)
        sealed = seal_from(Store.open(root), record, destination)
        assert verify(destination).id == sealed.id
        assert [path.name for path in destination.parent.iterdir()] == ["tiny"]
        if status == 0:
            assert number > 60
            assert returned > 10, "no kill came between moving and publishing"
            return
    pytest.fail("never got through")


def test_a_fault_after_moving_puts_everything_back(
    store: Store, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = commit(store, files=WEIGHTS)

    def fail(staged: Path, destination: Path) -> None:
        assert not any(stored(store, blob).exists() for blob in record.files.values())
        raise KeyboardInterrupt

    monkeypatch.setattr(seal_module, "publish", fail)
    with pytest.raises(KeyboardInterrupt):
        seal_from(store, record, destination)
    assert all(store.is_stored(blob) for blob in record.files.values())
    assert not destination.exists()
    assert_whole(store.root, record, WEIGHTS)


def test_moves_are_announced_before_the_first(store: Store, destination: Path) -> None:
    record = commit(store, files=WEIGHTS)
    announced: list[Move] = []

    def announce(moves: Sequence[Move]) -> None:
        assert all(move.source.exists() and not move.staged.exists() for move in moves)
        announced.extend(moves)

    moving = [BundleFile(path, store.path(blob), "x", "x/x", move=True) for path, blob in record.files.items()]
    seal(destination, [*files(), *moving], FACTS, announce=announce)
    assert [move.final for move in announced] == [destination / path for path in sorted(WEIGHTS)]
    assert all(move.inode == move.final.stat().st_ino for move in announced)


def test_what_cannot_be_announced_is_not_moved(store: Store, destination: Path) -> None:
    record = commit(store, files=WEIGHTS)

    def announce(moves: Sequence[Move]) -> None:
        raise KeyboardInterrupt

    moving = [BundleFile(path, store.path(blob), "x", "x/x", move=True) for path, blob in record.files.items()]
    with pytest.raises(KeyboardInterrupt):
        seal(destination, [*files(), *moving], FACTS, announce=announce)
    assert all(store.is_stored(blob) for blob in record.files.values())


def test_who_looks_while_a_seal_moves_waits_for_it(
    store: Store, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = commit(store, files=WEIGHTS)
    original = seal_module.publish
    found: list[ActionRecord | None] = []
    waiting = threading.Event()
    other = Store.open(store.root)
    monkeypatch.setattr("wanc.artifacts.locks._log.warning", lambda *_: waiting.set())
    looker = threading.Thread(target=lambda: found.append(other.lookup(record.key)))

    def publish(staged: Path, destination: Path) -> None:
        looker.start()
        assert waiting.wait(30), "the lookup did not wait"
        assert found == []
        original(staged, destination)

    monkeypatch.setattr(seal_module, "publish", publish)
    seal_from(store, record, destination)
    looker.join(30)
    assert found == [record]
    assert contents(other, record) == WEIGHTS


def test_who_reads_while_a_seal_moves_waits_as_well(
    store: Store, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build has looked a result up, computed for an hour, and looks at what it has read once more."""
    record = commit(store, files=WEIGHTS)
    original = seal_module.publish
    found: list[dict[str, bytes]] = []
    waiting = threading.Event()
    other = Store.open(store.root)
    monkeypatch.setattr("wanc.artifacts.locks._log.warning", lambda *_: waiting.set())
    reader = threading.Thread(target=lambda: found.append(contents(other, record)))

    def publish(staged: Path, destination: Path) -> None:
        reader.start()
        assert waiting.wait(30), "the reader did not wait"
        original(staged, destination)

    monkeypatch.setattr(seal_module, "publish", publish)
    seal_from(store, record, destination)
    reader.join(30)
    assert found == [WEIGHTS]


def test_one_seal_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    lines: list[str] = []
    with store.sealing(), pytest.raises(UserError) as caught, Store.open(store.root).sealing(lines.append):
        pytest.fail("two at once")
    assert (caught.value.exit_code, len(lines)) == (75, 1)
    with store.sealing():
        pass


def test_opening_a_store_does_not_wait_for_a_seal(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    record = commit(store)
    with store.sealing():
        assert Store.open(store.root).lookup(record.key) == record


def test_the_next_seal_puts_back_what_a_killed_one_moved(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opened the store before the kill, and would otherwise sweep the private directory with the blobs in it."""
    store, destination = Store.open(quick_path / "store"), quick_path / "bundles/tiny"
    record = commit(store, files=WEIGHTS)
    monkeypatch.setattr(seal_module, "publish", lambda *_: killed())
    assert in_a_child(lambda: seal_from(store, record, destination) and None) == 9
    assert not any(stored(store, blob).exists() for blob in record.files.values())
    monkeypatch.undo()
    assert store.lookup(record.key) == record
    seal_from(store, record, destination)
    assert_whole(store.root, record, WEIGHTS)
    assert [path.name for path in destination.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("data", [b"", b"{", b'{"moves":[{}]}', b'{"moves":[{"source":7}]}', b"\xff"])
def test_a_torn_journal_is_one_that_nothing_followed(store: Store, data: bytes) -> None:
    (store.root / "tmp/dead").mkdir()
    (store.root / "tmp/dead/.lock").write_bytes(b"")
    (store.root / "tmp/dead" / JOURNAL).write_bytes(data)
    record = commit(store)
    assert Store.open(store.root).lookup(record.key) == record
    assert list((store.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("kind", ["another file", "its place is taken", "gone"])
def test_only_what_was_moved_goes_back(tmp_path: Path, kind: str) -> None:
    source, staged = tmp_path / "source", tmp_path / "staged"
    source.write_bytes(b"moved")
    move = Move(source, staged, tmp_path / "final", source.stat().st_ino, 0o444)
    source.rename(staged)
    if kind == "another file":
        os.rename(staged, tmp_path / "kept")
        staged.write_bytes(b"of a replaced bundle")
    elif kind == "gone":
        staged.unlink()
    else:
        source.write_bytes(b"made again")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    move.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
