"""Cleaning a store: what is needed stays, what is young stays, and a cleaning that is stopped does no harm."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Wanc
from wanc.artifacts.fsck import check
from wanc.artifacts.gc import Cleaning, clean
from wanc.artifacts.locks import held
from wanc.artifacts.records import ActionRecord
from wanc.artifacts.store import Store
from wanc.errors import EXIT_DATA, EXIT_NO_INPUT, BundleError, OutputError, UserError, render

from .builder import Break
from .store_builder import FILES, commit, contents, stored

DAY = 86400
OWN = {"own": b"of this record alone"}


def age(path: Path, days: float) -> None:
    """Make a file look as if it had been untouched for so many days."""
    then = time.time() - days * DAY
    os.utime(path, (then, then), follow_symlinks=False)


def age_all(root: Path, days: float) -> None:
    for path in root.rglob("*"):
        age(path, days)


def action(store: Store, record: ActionRecord) -> Path:
    return store.root / "actions" / f"{record.key}.json"


def present(root: Path) -> set[str]:
    """Everything but the store's own directories and VERSION."""
    ours = [path for path in root.rglob("*") if path.is_file() or path.is_symlink()]
    return {path.relative_to(root).as_posix() for path in ours} - {"VERSION", "locks/store", "locks/sealing"}


def counts(cleaning: Cleaning) -> dict[str, int]:
    return {group.kind: group.count for group in cleaning.groups if group.count}


def test_what_nobody_needs_goes(store: Store) -> None:
    record = commit(store)
    age_all(store.root, 8)
    cleaning = clean(store.root, days=7)
    assert counts(cleaning) == {"records": 1, "blobs": len(FILES)}
    assert present(store.root) == set()
    assert store.lookup(record.key) is None
    assert contents(store, commit(store)) == FILES


def test_the_bytes_are_those_that_were_there(store: Store) -> None:
    record = commit(store)
    size = action(store, record).stat().st_size + sum(map(len, FILES.values()))
    age_all(store.root, 8)
    assert clean(store.root, days=7).bytes == size
    assert clean(store.root, days=7).bytes == 0


def test_what_a_ref_names_stays_however_old(store: Store) -> None:
    kept, gone = commit(store, 0, FILES), commit(store, 1, {**FILES, **OWN})
    store.set_ref("tiny", [kept.key, "f" * 64])
    age_all(store.root, 1000)
    assert counts(clean(store.root, days=1)) == {"records": 1, "blobs": 1}
    assert store.lookup(kept.key) == kept
    assert contents(Store.open(store.root), kept) == FILES
    assert store.lookup(gone.key) is None


def test_what_a_ref_no_longer_names_goes(store: Store) -> None:
    first, second = commit(store, 0, {"a": b"first"}), commit(store, 1, {"a": b"second"})
    store.set_ref("tiny", [first.key])
    store.set_ref("tiny", [second.key])
    age_all(store.root, 8)
    assert counts(clean(store.root, days=7)) == {"records": 1, "blobs": 1}
    assert store.lookup(second.key) == second


@pytest.mark.parametrize(
    ("days_old", "days", "goes"), [(1.1, 1, True), (0.9, 1, False), (6.9, 7, False), (7.1, 7, True)]
)
def test_the_age_that_counts(store: Store, days_old: float, days: int, goes: bool) -> None:
    commit(store)
    age_all(store.root, days_old)
    assert counts(clean(store.root, days=days)) == ({"records": 1, "blobs": len(FILES)} if goes else {})


@pytest.mark.parametrize("days", [0, -1])
def test_nothing_younger_than_a_day_can_be_asked_to_go(store: Store, days: int) -> None:
    with pytest.raises(ValueError, match="younger than a day"):
        clean(store.root, days=days)


@pytest.mark.parametrize("ahead", [60, 400 * DAY, 4_000_000_000])
def test_times_in_the_future_are_young(store: Store, ahead: int) -> None:
    record = commit(store)
    for path in store.root.rglob("*"):
        os.utime(path, (time.time() + ahead,) * 2)
    assert counts(clean(store.root, days=1)) == {}
    assert store.lookup(record.key) == record


def test_a_record_that_was_used_is_young_again(store: Store) -> None:
    used, unused = commit(store, 0, {"a": b"used"}), commit(store, 1, {"a": b"unused"})
    age_all(store.root, 30)
    assert store.lookup(used.key) == used
    assert counts(clean(store.root, days=7)) == {"records": 1, "blobs": 1}
    assert contents(Store.open(store.root), used) == {"a": b"used"}
    assert store.lookup(unused.key) is None


def test_old_files_of_a_young_record_stay(store: Store) -> None:
    record = commit(store)
    for blob in record.files.values():
        age(stored(store, blob), 1000)
    assert counts(clean(store.root, days=1)) == {}
    assert contents(Store.open(store.root), record) == FILES


def test_a_stage_that_copies_times_does_not_make_its_result_old(store: Store) -> None:
    with store.workdir() as workdir:
        (workdir / "out").mkdir()
        (workdir / "out/file").write_bytes(b"copied")
        age(workdir / "out/file", 1000)
        record = commit(store, 0, {"file": b"copied"})
    action(store, record).unlink()
    assert counts(clean(store.root, days=1)) == {}


def orphan(store: Store) -> list[Path]:
    record = commit(store)
    action(store, record).unlink()
    return [stored(store, blob) for blob in record.files.values()]


def note(store: Store) -> list[Path]:
    record = commit(store, 0, {"weights": b"weights"})
    blob = record.files["weights"]
    outside = store.root.parent / "weights"
    stored(store, blob).rename(outside)
    store.relocate(blob, outside)
    action(store, record).unlink()
    return [store.root / "located" / f"{blob.hex}.json"]


def lock(store: Store) -> list[Path]:
    with store.action_lock("a" * 64):
        return [store.root / "locks" / ("a" * 64)]


def quarantined(store: Store) -> list[Path]:
    record = commit(store, 0, {})
    action(store, record).write_bytes(b"{")
    age(action(store, record), 1000)  # the damage may be old: it was found today
    assert store.lookup(record.key) is None
    return list((store.root / "quarantine").iterdir())


def quarantined_link(store: Store) -> list[Path]:
    record = commit(store, 0, {"a": b"a"})
    blob = stored(store, record.files["a"])
    blob.unlink()
    blob.symlink_to(store.root.parent / "nowhere")
    assert store.lookup(record.key) is None
    return [path for path in (store.root / "quarantine").iterdir() if path.is_symlink()]


def stray_workdir(store: Store) -> list[Path]:
    (store.root / "tmp/stray/deep").mkdir(parents=True)
    (store.root / "tmp/stray/deep/file").write_bytes(b"12345")
    return [store.root / "tmp/stray"]


def scratch(store: Store) -> list[Path]:
    """What a build that nobody took up again had finished; when it last finished something is what counts."""
    folder = store.scratch("b" * 64)
    age(folder, 1000)
    (folder / "clip-0").write_bytes(b"12345")
    age(folder / "clip-0", 1000)
    return [folder]


@pytest.mark.parametrize("litter", [orphan, note, lock, quarantined, quarantined_link, stray_workdir, scratch])
def test_litter_goes_when_it_is_old(store: Store, litter: Callable[[Store], list[Path]]) -> None:
    paths = litter(store)
    assert paths
    clean(store.root, days=1)
    assert all(os.path.lexists(path) for path in paths), "a cleaning took what was young"
    for path in paths:
        age(path, 1.1)
    cleaning = clean(store.root, days=1)
    assert not any(os.path.lexists(path) for path in paths)
    assert sum(counts(cleaning).values()) == len(paths)


def test_what_a_note_or_a_link_leads_to_is_left_alone(store: Store) -> None:
    note(store)
    outside = store.root.parent / "weights"
    (store.root / "tmp/stray").symlink_to(outside)
    age_all(store.root, 8)
    age(outside, 8)
    assert counts(clean(store.root, days=7)) == {"notes": 1, "workdirs": 1}
    assert outside.read_bytes() == b"weights"


def test_a_note_of_a_kept_record_stays(store: Store) -> None:
    record = commit(store)
    blob = record.files["graph.onnx"]
    stored(store, blob).rename(store.root.parent / "graph")
    store.relocate(blob, store.root.parent / "graph")
    store.set_ref("tiny", [record.key])
    age_all(store.root, 8)
    assert counts(clean(store.root, days=7)) == {}
    assert store.lookup(record.key) == record


def test_a_workdir_in_use_stays(store: Store) -> None:
    with store.workdir() as workdir:
        age_all(store.root, 8)
        assert counts(clean(store.root, days=7)) == {}
        assert workdir.is_dir()


def test_a_dry_run_changes_nothing(store: Store) -> None:
    gone = commit(store, 0, OWN)
    stray_workdir(store)
    lock(store)
    age_all(store.root, 8)
    before = present(store.root)
    planned = clean(store.root, days=7, dry_run=True)
    assert present(store.root) == before
    assert store.root.joinpath("actions", f"{gone.key}.json").exists()
    done = clean(store.root, days=7)
    assert planned.groups == done.groups
    assert (planned.dry_run, done.dry_run) == (True, False)
    assert present(store.root) == set()


def test_a_running_build_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    commit(store)
    age_all(store.root, 8)
    lines: list[str] = []
    with store.session(), pytest.raises(UserError) as caught:
        clean(store.root, days=7, on_wait=lines.append)
    assert (caught.value.exit_code, len(lines)) == (75, 1)
    assert len(list((store.root / "actions").iterdir())) == 1


def test_builds_wait_for_a_cleaning(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is held from the marking to the last removal: nothing can come to need what is about to go."""
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    commit(store)
    age_all(store.root, 8)
    tried: list[int] = []
    original = Path.unlink

    def unlink(path: Path, *arguments: bool, **named: bool) -> None:
        with pytest.raises(UserError), store.session(on_wait=lambda _: None):
            pass
        tried.append(1)
        original(path, *arguments, **named)

    monkeypatch.setattr(Path, "unlink", unlink)
    clean(store.root, days=7)
    assert len(tried) == 1 + len(FILES)


@pytest.mark.parametrize("data", [b"", b"{", b'{"keys":["x"]}', b'{"keys":7}'])
def test_a_damaged_ref_stops_a_cleaning(store: Store, data: bytes) -> None:
    """It may have named anything. A check sets it aside, and then what it named has seven days left."""
    commit(store)
    (store.root / "refs/tiny").write_bytes(data)
    age_all(store.root, 8)
    before = present(store.root)
    with pytest.raises(BundleError) as caught:
        clean(store.root, days=7)
    assert caught.value.exit_code == EXIT_DATA
    assert render(caught.value).startswith(
        f"error: {store.root}: what is needed cannot be told, so nothing is removed\ncaused by: {store.root}/refs/tiny"
    )
    assert render(caught.value).endswith("hint: run `wanc store fsck` first")
    assert present(store.root) == before
    assert [finding.path for finding in check(store.root).findings] == ["refs/tiny"]
    assert counts(clean(store.root, days=7)) == {"records": 1, "blobs": len(FILES)}


def test_a_damaged_record_that_is_needed_stops_a_cleaning(store: Store) -> None:
    record = commit(store)
    action(store, record).write_bytes(b"{")
    store.set_ref("tiny", [record.key])
    age_all(store.root, 8)
    with pytest.raises(BundleError):
        clean(store.root, days=7)
    assert len(list((store.root / "blobs").rglob("*/*/*"))) == len(FILES)


def io_error() -> None:
    raise OSError(5, "Input/output error")


def test_a_cleaning_that_is_stopped_anywhere_does_no_harm(quick_path: Path, break_at: Break) -> None:
    """After each prefix of its steps: no half hit, no damage, and the next cleaning finishes the job."""
    for number in range(1, 100):
        store = Store.open(quick_path / str(number))
        kept, gone = commit(store, 0, FILES), commit(store, 1, {**OWN, "graph.onnx": b"graph"})
        store.set_ref("tiny", [kept.key])
        stray_workdir(store)
        age_all(store.root, 8)
        reached = break_at(number, io_error)
        try:
            clean(store.root, days=7)
        except OutputError as error:
            assert error.exit_code == 74
        finally:
            was_reached = reached()
        checkup = check(store.root)
        assert checkup.findings == ()
        assert contents(Store.open(store.root), kept) == FILES
        assert store.lookup(gone.key) in (None, gone)
        if store.lookup(gone.key):
            continue
        clean(store.root, days=7)
        assert len(list((store.root / "blobs").rglob("*/*/*"))) == len(FILES)
        if not was_reached:
            assert number > 5
            return
    pytest.fail("never got through")


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """Where `wanc` is told that its store is."""
    store = Store.open(tmp_path / "output/store")
    commit(store, 0, {"a": b"x" * 2**20})
    age_all(store.root, 8)
    yield tmp_path / "output"


def test_the_verb_tells_what_it_freed(wanc: Wanc, output: Path) -> None:
    size = sum(path.stat().st_size for path in (output / "store/actions").iterdir()) + 2**20
    planned = json.loads(wanc("store", "gc", "-o", output, "--dry-run", "--json").out)
    assert planned == {
        "dry_run": True,
        "bytes": size,
        "removed": {
            "records": {"count": 1, "bytes": size - 2**20},
            "notes": {"count": 0, "bytes": 0},
            "blobs": {"count": 1, "bytes": 2**20},
            "locks": {"count": 0, "bytes": 0},
            "scratch": {"count": 0, "bytes": 0},
            "quarantine": {"count": 0, "bytes": 0},
            "workdirs": {"count": 0, "bytes": 0},
        },
    }
    assert wanc("store", "gc", "-o", output, "--days", "9").out == "0.0 MiB freed\n"
    assert wanc("store", "gc", "-o", output, "--dry-run").out.splitlines()[-1] == "1.0 MiB would be freed"
    finished = wanc("store", "gc", "-o", output)
    assert (finished.code, finished.err) == (0, "")
    assert [line.split() for line in finished.out.splitlines()] == [
        ["records", "1", "0.0", "MiB"],
        ["blobs", "1", "1.0", "MiB"],
        ["1.0", "MiB", "freed"],
    ]


@pytest.mark.parametrize("days", ["0", "-3", "many"])
def test_days_that_are_none(wanc: Wanc, output: Path, days: str) -> None:
    finished = wanc("store", "gc", "-o", output, "--days", days)
    assert (finished.code, finished.out) == (2, "")
    assert "--days" in finished.err


@pytest.mark.parametrize("verb", ["gc", "fsck"])
def test_where_there_is_no_store_none_is_made(wanc: Wanc, tmp_path: Path, verb: str) -> None:
    (tmp_path / "empty/store").mkdir(parents=True)
    for name in ("absent", "empty"):
        finished = wanc("store", verb, "-o", tmp_path / name)
        assert (finished.code, finished.out, finished.err) == (
            EXIT_NO_INPUT,
            "",
            f"error: {tmp_path / name}/store: there is no store here yet\nhint: `wanc build` makes one\n",
        )
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "store"]


def test_a_busy_store_is_a_temporary_fault(wanc: Wanc, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    with held(output / "store/locks/store", shared=True):
        for verb in ("gc", "fsck"):
            finished = wanc("store", verb, "-o", output)
            assert (finished.code, finished.out) == (75, "")
            assert finished.err.endswith("to the number of seconds to wait\n")
