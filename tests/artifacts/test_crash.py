"""Faults and kills at every system call that changes anything: the old state or the new, never a mixture."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.artifacts import publish as publish_module
from wanc.artifacts.canonical import key_of
from wanc.artifacts.private import abandoned
from wanc.artifacts.seal import BundleFacts, BundleFile, seal
from wanc.artifacts.store import Store
from wanc.errors import EXIT_IO, OutputError
from wanc.runtime.strict_json import JsonObject
from wanc.runtime.verify import verify

from .builder import Break

DOCUMENT: JsonObject = {"stage": "export"}
KEY = key_of(DOCUMENT)
FILES = {"graph.onnx": b"graph", "sub/weights.safetensors": b"weights"}


def commit(store: Store) -> None:
    with store.workdir() as workdir:
        for path, data in FILES.items():
            (workdir / "out" / path).parent.mkdir(parents=True, exist_ok=True)
            (workdir / "out" / path).write_bytes(data)
        store.commit(KEY, stage="export", document=DOCUMENT, tree=workdir / "out", meta={})


def assert_sound(root: Path) -> None:
    """The store opens, holds the whole result or none of it, and can be used."""
    store = Store.open(root)
    record = store.lookup(KEY)
    if record:
        assert {path: store.path(blob).read_bytes() for path, blob in record.files.items()} == FILES
    assert list((root / "tmp").iterdir()) == []
    commit(store)
    assert store.lookup(KEY) is not None


def seal_in(directory: Path, content: bytes) -> str:
    weights = directory / "weights"
    files = [
        BundleFile("run.py", b"print()\n", "entry", "text/x-python"),
        BundleFile("engines/a/step.onnx", content, "graph", "application/octet-stream"),
        BundleFile("engines/a/weights.safetensors", weights, "weights", "application/octet-stream", move=True),
    ]
    facts = BundleFacts("tiny", "1.0", 0, "run.py", f"sha256:{'0' * 64}", {}, {})
    return seal(directory / "bundle", files, facts).id


def prepare(directory: Path) -> str:
    """A bundle that stands already, and weights to move into the next."""
    directory.mkdir()
    (directory / "weights").write_bytes(b"weights")
    old = seal_in(directory, b"old graph")
    (directory / "weights").write_bytes(b"WEIGHTS")
    (directory / "weights").chmod(0o444)
    return old


def assert_old_or_new(directory: Path, old: str) -> bool:
    """Whether the new bundle stands; if not, the weights are back. Nothing else lies around after a sweep."""
    for _ in abandoned(directory, prefix=".bundle.", suffix=".sealing"):
        pass
    report = verify(directory / "bundle")
    assert report.failures == ()
    names = {path.name for path in directory.iterdir()}
    if report.id == old:
        assert names == {"bundle", "weights"}
        assert (directory / "weights").read_bytes() == b"WEIGHTS"
        assert (directory / "weights").stat().st_mode & 0o7777 == 0o444
        return False
    assert names == {"bundle"}
    return True


def io_error() -> None:
    raise OSError(errno.EIO, "Input/output error")


def full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class SurpriseError(Exception):
    """Stands for anything that our code does not expect."""


def torn_out() -> None:
    raise SurpriseError


def killed() -> None:
    os._exit(9)


@pytest.mark.parametrize("strike", [io_error, full_disk, torn_out])
def test_a_fault_at_every_step_of_a_commit(quick_path: Path, break_at: Break, strike: Callable[[], None]) -> None:
    for number in range(1, 200):
        root = quick_path / str(number)
        store = Store.open(root)
        reached = break_at(number, strike)
        try:
            commit(store)
        except (OSError, SurpriseError):
            pass  # the test's own writing, or a kill
        except OutputError as error:
            assert error.exit_code == EXIT_IO
        finally:
            was_reached = reached()
        assert_sound(root)
        if not was_reached:
            assert number > 20
            return
    pytest.fail("never got through")


@pytest.mark.parametrize("strike", [io_error, full_disk, torn_out])
def test_a_fault_at_every_step_of_a_seal(quick_path: Path, break_at: Break, strike: Callable[[], None]) -> None:
    for number in range(1, 300):
        directory = quick_path / str(number)
        old = prepare(directory)
        reached = break_at(number, strike)
        failed = False
        try:
            seal_in(directory, b"new graph")
        except (OutputError, SurpriseError):
            failed = True
        finally:
            was_reached = reached()
        is_new = assert_old_or_new(directory, old)
        assert is_new or failed
        if not was_reached:
            assert is_new and number > 30
            return
    pytest.fail("never got through")


def in_a_child(work: Callable[[], None]) -> int:
    """The exit status of a forked process that does the work: 0, or 9 when it was killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads, which the test runner may have
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_kill_at_every_step_of_a_commit(quick_path: Path, break_at: Break) -> None:
    for number in range(1, 200):
        root = quick_path / str(number)

        def work(root: Path = root, number: int = number) -> None:
            break_at(number, killed)
            commit(Store.open(root))

        status = in_a_child(work)
        assert_sound(root)
        if status == 0:
            assert number > 40
            return
    pytest.fail("never got through")


def test_a_kill_at_every_step_of_a_seal(quick_path: Path, break_at: Break) -> None:
    """What was being moved may be gone with a killed process; the bundle is whole, the old or the new one."""
    for number in range(1, 300):
        directory = quick_path / str(number)
        old = prepare(directory)

        def work(directory: Path = directory, number: int = number) -> None:
            break_at(number, killed)
            seal_in(directory, b"new graph")

        status = in_a_child(work)
        report = verify(directory / "bundle")
        assert report.failures == ()
        assert status == 9 or report.id != old
        (directory / "weights").write_bytes(b"WEIGHTS")
        new = seal_in(directory, b"new graph")
        assert verify(directory / "bundle").id == new
        assert {path.name for path in directory.iterdir()} == {"bundle"}
        if status == 0:
            assert number > 40
            return
    pytest.fail("never got through")


class Durability:
    """Follows which inodes were fsynced, and what was not when something was given its final name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: set[int] = set()
        self.too_early: list[str] = []
        self.renamed: list[Path] = []
        fsync, rename, replace = os.fsync, os.rename, os.replace

        def synced(descriptor: int) -> None:
            fsync(descriptor)
            self.synced.add(os.fstat(descriptor).st_ino)

        def named(function: Callable[..., None]) -> Callable[..., None]:
            def wrapped(source: Path, target: Path) -> None:
                self.about_to_name(Path(source))
                function(source, target)
                self.synced.discard(Path(target).parent.stat().st_ino)  # it has a new entry
                self.renamed.append(Path(target))

            return wrapped

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "rename", named(rename))
        monkeypatch.setattr(os, "replace", named(replace))

    def about_to_name(self, path: Path) -> None:
        for found in [path, *(path.rglob("*") if path.is_dir() else ())]:
            if found.stat().st_ino not in self.synced:
                self.too_early.append(str(found))


def test_a_record_is_named_last_and_everything_is_durable_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path)
    durability = Durability(monkeypatch)
    commit(store)
    assert durability.too_early == []
    assert durability.renamed[-1] == tmp_path / "actions" / f"{KEY}.json"
    assert len(durability.renamed) == len(FILES) + 1
    for path in durability.renamed:
        assert path.parent.stat().st_ino in durability.synced


def test_a_bundle_is_durable_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "d"
    prepare(directory)
    durability = Durability(monkeypatch)
    exchange = publish_module.exchange

    def watched(staged: Path, destination: Path) -> bool:
        durability.too_early.clear()  # adopted files are renamed into the private copy before they are fsynced
        durability.about_to_name(staged)
        return exchange(staged, destination)

    monkeypatch.setattr(publish_module, "exchange", watched)
    seal_in(directory, b"new graph")
    assert durability.too_early == []
    assert directory.stat().st_ino in durability.synced
