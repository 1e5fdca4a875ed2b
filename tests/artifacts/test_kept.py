"""What a stage keeps until it is done: only what is exactly what was kept is used again."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from wanc.artifacts.kept import forget_damaged, keep, restore
from wanc.artifacts.store import Store
from wanc.errors import OutputError

from .builder import Break

KEY = "a" * 64


def kept(path: Path, data: bytes = b"latents of a clip") -> Path:
    keep(path, lambda place: place.write_bytes(data))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a stage has it: a link to the folder that is named by its key."""
    (tmp_path / "store" / KEY).mkdir(parents=True)
    (tmp_path / "scratch").symlink_to(tmp_path / "store" / KEY)
    return tmp_path / "scratch"


def flip(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def swap(path: Path) -> None:
    other = kept(path.with_name("clip-1"), b"latents of another")
    for suffix in ("", ".kept"):
        one, two = path.with_name(path.name + suffix), other.with_name(other.name + suffix)
        one.rename(path.with_name("between"))
        two.rename(one)
        path.with_name("between").rename(two)


def from_another_key(path: Path) -> None:
    """A whole folder under the name of another."""
    elsewhere = path.resolve().parent.with_name("b" * 64)
    elsewhere.mkdir()
    kept(elsewhere / path.name, b"of another recipe")
    for name in (path.name, f"{path.name}.kept"):
        shutil.copy2(elsewhere / name, path.with_name(name))


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def hard_link(path: Path) -> None:
    os.link(path, path.with_name("elsewhere"))


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.kept")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit": flip,
    "truncated": lambda path: os.truncate(path, 5),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"s"),
    "empty": lambda path: path.write_bytes(b""),
    "swapped": swap,
    "of another key": from_another_key,
    "a link": link,
    "a hard link": hard_link,
    "a directory": directory,
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "no record": lambda path: record_of(path).unlink(),
    "an empty record": lambda path: record_of(path).write_bytes(b""),
    "a bit of the record": lambda path: flip(record_of(path)),
    "a record that is a directory": lambda path: (record_of(path).unlink(), record_of(path).mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("asked", ["restore", "forget"])
def test_what_is_damaged_is_made_again(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str, asked: str
) -> None:
    path, result = kept(folder / "clip-0"), tmp_path / "result"
    DAMAGES[damage](path)
    with caplog.at_level(logging.WARNING):
        if asked == "restore":
            assert not restore(path, result)
        else:
            forget_damaged(path)
    assert len(caplog.records) == 1 and caplog.messages[0].endswith(": it is made again")
    assert not os.path.lexists(path) and not result.exists()
    assert restore(kept(path, b"made again"), result) and result.read_bytes() == b"made again"


def test_what_is_sound_is_used(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = kept(folder / "clip-0")
    forget_damaged(path)
    assert restore(path, tmp_path / "result") and (tmp_path / "result").read_bytes() == b"latents of a clip"
    assert caplog.records == []


def test_what_is_not_there_is_made_without_a_word(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forget_damaged(folder / "clip-0")
    assert not restore(folder / "clip-0", tmp_path / "result")
    assert caplog.records == []


def test_what_is_replaced_leads_nowhere_else(folder: Path, tmp_path: Path) -> None:
    """Neither the place nor the private one beside it."""
    (tmp_path / "mine").write_bytes(b"mine")
    for name in ("clip-0", "clip-0.part", "clip-0.kept", "clip-0.kept.part"):
        (folder / name).symlink_to(tmp_path / "mine")
    assert restore(kept(folder / "clip-0"), tmp_path / "result")
    assert (tmp_path / "mine").read_bytes() == b"mine"


class Stopped(Exception):
    """As by a kill."""


@pytest.mark.parametrize("number", range(1, 40))
def test_a_kill_at_every_step_leaves_the_old_or_the_new(
    folder: Path, tmp_path: Path, break_at: Break, number: int
) -> None:
    """Also where a kill came before, and left what no file has come of."""
    path = kept(folder / "state", b"round 1")

    def stop() -> None:
        raise Stopped

    for data in (b"round 2", b"round 3"):
        remove = break_at(number, stop)
        with suppress(Stopped):
            kept(path, data)
        remove()
        assert restore(path, tmp_path / "result")
        assert (tmp_path / "result").read_bytes() in {b"round 1", b"round 2", data}
        (tmp_path / "result").unlink()


def test_a_disk_that_takes_nothing(folder: Path) -> None:
    def fail(place: Path) -> None:
        raise OSError(28, "No space left on device", str(place))

    with pytest.raises(OutputError):
        keep(folder / "clip-0", fail)


@pytest.mark.parametrize("kind", ["a file", "a link"])
def test_a_folder_of_a_key_that_is_none_is_set_aside(store: Store, tmp_path: Path, kind: str) -> None:
    place = store.root / "scratch" / KEY
    (tmp_path / "mine").mkdir()
    if kind == "a file":
        place.write_bytes(b"")
    else:
        place.symlink_to(tmp_path / "mine")
    assert store.scratch(KEY).is_dir() and not place.is_symlink()
    assert [path.name.split(".")[0] for path in (store.root / "quarantine").iterdir()] == [KEY]
