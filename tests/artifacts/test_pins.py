"""Sources that were hashed: whether they still are what they were shows without reading them, or they are read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.artifacts import sources
from wanc.artifacts.pins import PinnedFiles
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.errors import EXIT_TEMPORARY, UserError
from wanc.runtime import safe_read

NAMES = ("model/a.bin", "model/deep/b.bin")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two files, the second one reached by a chain of links as well."""
    for name in NAMES:
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    (tmp_path / "root/first").symlink_to("second")
    (tmp_path / "root/second").symlink_to(tmp_path / "root/model/deep")
    return tmp_path / "root"


def pinned(store: Store, root: Path) -> PinnedFiles:
    files = {name: root / name for name in (NAMES[0], "first/b.bin")}
    return PinnedFiles(files, SourceDigests(store))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files made by a test have settled: the clock says that they are ten minutes old."""
    now = sources.time.time_ns()
    monkeypatch.setattr(sources.time, "time_ns", lambda: now + 600 * 10**9)


def swap(path: Path) -> None:
    """Put something else in a place and then back, all within one look and the next."""
    path.rename(path.with_name("aside"))
    path.write_bytes(b"WEIGHTS")
    path.unlink()
    path.with_name("aside").rename(path)


def swap_folder(path: Path) -> None:
    path.rename(path.with_name("aside"))
    shutil.copytree(path.with_name("aside"), path)
    shutil.rmtree(path)
    path.with_name("aside").rename(path)


def swap_link(path: Path) -> None:
    target = os.readlink(path)
    path.unlink()
    path.symlink_to("/nowhere")
    path.unlink()
    path.symlink_to(target)


def with_times(path: Path) -> None:
    times = path.stat()
    path.write_bytes(b"WEIGHTS")
    path.write_bytes(b"weights")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "written": (NAMES[0], lambda path: path.write_bytes(b"WEIGHTS")),
    "put back with its times": (NAMES[0], with_times),
    "touched": (NAMES[0], lambda path: os.utime(path, (1, 1))),
    "exchanged and put back": (NAMES[0], swap),
    "removed": (NAMES[0], lambda path: path.unlink()),
    "a folder": (NAMES[0], lambda path: (path.unlink(), path.mkdir())),
    "through its link": (NAMES[1], lambda path: path.write_bytes(b"WEIGHTS")),
    "its folder": ("model/deep", swap_folder),
    "a folder above": ("model", swap_folder),
    "the first link": ("first", swap_link),
    "the second link": ("second", swap_link),
    "a link removed": ("second", lambda path: path.unlink()),
}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_shows(store: Store, root: Path, name: str) -> None:
    pins = pinned(store, root)
    pins.check()
    path, change = CHANGES[name]
    change(root / path)
    with pytest.raises(UserError, match="changed while it was being built") as caught:
        pins.check()
    assert str(caught.value.where).startswith(str(root)) and caught.value.exit_code == EXIT_TEMPORARY


@pytest.mark.usefixtures("settled")
def test_what_happens_beside_them_is_no_change(store: Store, root: Path) -> None:
    pins = pinned(store, root)
    (root / "model/deep/__pycache__").mkdir()
    (root / "model/new").write_bytes(b"new")
    (root / "model/new").unlink()
    (root / NAMES[0]).read_bytes()
    pins.check()


def freeze(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes within one tick of the clock: the file looks as it did before the second."""
    looks = sources.identity_text(path.stat())
    monkeypatch.setattr(sources, "identity_text", lambda _: looks)


def test_a_second_write_in_one_tick_of_the_clock_is_found(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fresh"
    path.write_bytes(b"weights")
    freeze(path, monkeypatch)
    pin = SourceDigests(store).pin(path)
    pin.check()
    path.write_bytes(b"WEIGHTS")
    with pytest.raises(UserError, match="changed while it was being built"):
        pin.check()
    assert not (store.root / "sources.json").exists(), "nor is its digest remembered"


def test_a_file_that_settles_while_it_is_read_had_not(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading 57 GB takes a minute: what was written over in its first millisecond must not be remembered."""
    path = tmp_path / "fresh"
    path.write_bytes(b"weights")
    freeze(path, monkeypatch)

    def slow(descriptor: int, on_bytes: safe_read.OnBytes | None = None) -> tuple[str, int]:
        result = safe_read.sha256_of(descriptor, on_bytes)
        path.write_bytes(b"WEIGHTS")
        now = sources.time.time_ns()
        monkeypatch.setattr(sources.time, "time_ns", lambda: now + 600 * 10**9)
        return result

    monkeypatch.setattr(sources, "sha256_of", slow)
    pin = SourceDigests(store).pin(path)
    assert not (store.root / "sources.json").exists()
    monkeypatch.setattr(sources, "sha256_of", safe_read.sha256_of)
    with pytest.raises(UserError, match="changed while it was being built"):
        pin.check()


@pytest.mark.usefixtures("settled")
def test_where_change_times_can_be_set_nothing_is_believed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fat"
    path.write_bytes(b"weights")
    monkeypatch.setattr(sources, "file_system", lambda _: "vfat")
    sources._keeps_change_times.cache_clear()
    freeze(path, monkeypatch)
    pin = SourceDigests(store).pin(path)
    assert not (store.root / "sources.json").exists()
    path.write_bytes(b"WEIGHTS")
    with pytest.raises(UserError, match="changed while it was being built"):
        pin.check()
    sources._keeps_change_times.cache_clear()


@pytest.mark.usefixtures("settled")
def test_a_flipped_bit_of_what_is_remembered_is_no_other_digest(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    right = SourceDigests(store).blob(path)
    memory = store.root / "sources.json"
    data = memory.read_bytes()
    for offset in range(0, len(data), 5):
        changed = bytearray(data)
        changed[offset] ^= 1
        memory.write_bytes(changed)
        assert SourceDigests(store).blob(path) == right
