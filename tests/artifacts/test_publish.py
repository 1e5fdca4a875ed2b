"""Putting a bundle in its place: over an older one at once, and over nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from wanc.artifacts import publish as publish_module
from wanc.artifacts.seal import BundleFile, seal
from wanc.errors import EXIT_IO, OutputError, UserError
from wanc.runtime.verify import verify

from .seal_builder import CONTENT, FACTS, files, present


def test_a_bundle_is_replaced_as_a_whole(destination: Path) -> None:
    first = seal(destination, files({**CONTENT, "old": b""}), FACTS)
    opened = os.open(destination, os.O_RDONLY)
    try:
        second = seal(destination, files({**CONTENT, "new": b""}), FACTS)
        assert os.fstat(opened).st_ino != destination.stat().st_ino
    finally:
        os.close(opened)
    assert first.id != second.id == verify(destination).id
    assert "old" not in present(destination)
    assert list(destination.parent.iterdir()) == [destination]


@pytest.fixture(params=["no renameat2", "ENOSYS", "EINVAL"])
def without_exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems and kernels that cannot swap two names."""

    class Library:
        def __init__(self, *_: object, **__: object) -> None:
            if request.param != "no renameat2":
                self.renameat2 = lambda *_: -1

    monkeypatch.setattr(publish_module.ctypes, "CDLL", Library)
    monkeypatch.setattr(publish_module.ctypes, "get_errno", lambda: getattr(errno, request.param, 0))


@pytest.mark.usefixtures("without_exchange")
def test_replacing_without_an_exchange(destination: Path) -> None:
    seal(destination, files({**CONTENT, "old": b""}), FACTS)
    second = seal(destination, files(), FACTS)
    assert second.id == verify(destination).id
    assert verify(destination).ok
    assert list(destination.parent.iterdir()) == [destination]


@pytest.mark.usefixtures("without_exchange")
def test_a_failed_rename_puts_the_old_bundle_back(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = seal(destination, files(), FACTS)
    original = os.rename

    def rename(old: Path, new: Path) -> None:
        if Path(old).name == "bundle":
            raise OSError(errno.EIO, "Input/output error")
        original(old, new)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OutputError):
        seal(destination, files({**CONTENT, "new": b""}), FACTS)
    assert verify(destination).id == first.id
    assert list(destination.parent.iterdir()) == [destination]


def test_what_was_killed_between_two_renames_is_put_back(destination: Path) -> None:
    first = seal(destination, files(), FACTS)
    private = destination.with_name(f".{destination.name}.k1ll3d.sealing")
    private.mkdir()
    (private / ".lock").write_bytes(b"")
    destination.rename(private / "replaced")
    with pytest.raises(UserError):
        seal(destination, [*files(), BundleFile("x", private / "fifo", "x", "x/x")], FACTS)
    assert not destination.exists()  # a fault in what was asked comes first, and touches nothing
    (private / "source").write_bytes(b"x")
    with pytest.raises(UserError):
        seal(destination, [*files(), BundleFile("x", private / "source", "x", "x/x")], FACTS)
    assert verify(destination).id == first.id
    assert list(destination.parent.iterdir()) == [destination]


def test_other_exchange_errors_are_told(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = seal(destination, files(), FACTS)

    class Library:
        def __init__(self, *_: object, **__: object) -> None:
            self.renameat2 = lambda *_: -1

    monkeypatch.setattr(publish_module.ctypes, "CDLL", Library)
    monkeypatch.setattr(publish_module.ctypes, "get_errno", lambda: errno.EBUSY)
    with pytest.raises(OutputError) as caught:
        seal(destination, files({**CONTENT, "new": b""}), FACTS)
    assert (caught.value.exit_code, caught.value.where) == (EXIT_IO, str(destination))
    assert verify(destination).id == first.id


@pytest.mark.parametrize("kind", ["directory", "file", "link", "dangling link", "other marker"])
def test_somebody_elses_things_are_never_replaced(destination: Path, tmp_path: Path, kind: str) -> None:
    destination.parent.mkdir()
    if kind == "directory":
        destination.mkdir()
        (destination / "thesis.tex").write_bytes(b"")
    elif kind == "other marker":
        destination.mkdir()
        (destination / "WANC").write_bytes(b"my cat\n")
    elif kind == "file":
        destination.write_bytes(b"")
    else:
        if kind == "link":
            seal(tmp_path / "real", files(), FACTS)
        destination.symlink_to(tmp_path / "real")
    with pytest.raises(UserError, match="exists and is not a bundle") as caught:
        seal(destination, files(), FACTS)
    assert caught.value.hint
    assert len(list(destination.parent.iterdir())) == 1


def test_an_empty_directory_is_replaced(destination: Path) -> None:
    destination.mkdir(parents=True)
    seal(destination, files(), FACTS)
    assert verify(destination).ok


def test_leftovers_of_the_dead_are_swept(destination: Path) -> None:
    destination.parent.mkdir()
    dead = destination.with_name(f".{destination.name}.0123.sealing")
    neighbour = destination.with_name(f".{destination.name}.b.0123.sealing")
    for path in (dead, neighbour):
        (path / "bundle").mkdir(parents=True)
        (path / ".lock").write_bytes(b"")
    seal(destination, files(), FACTS)
    assert not dead.exists()
    assert neighbour.exists()
