"""Locks are held by processes, not by files; and private directories vanish with them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wanc.artifacts.locks import held, release, try_lock
from wanc.artifacts.private import LOCK_NAME, abandoned, private_directory
from wanc.errors import EXIT_USAGE, OutputError, UserError

from .builder import ROOT

HOLD = """
import sys
from pathlib import Path
from wanc.artifacts.locks import held
from wanc.artifacts.private import private_directory
hold = held if sys.argv[1] == "lock" else private_directory
with hold(Path(sys.argv[2])) as directory:
    if directory:
        (directory / "inner").mkdir()
        (directory / "inner/file").write_bytes(b"")
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(kind: str, path: Path) -> Generator[subprocess.Popen[str]]:
    """A process that holds a lock or a private directory until it is killed or its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_lock_excludes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held(path):
        assert try_lock(path) is None
        assert try_lock(path, shared=True) is None
    descriptor = try_lock(path)
    assert descriptor is not None
    release(descriptor)
    assert path.exists()


def test_shared_locks_exclude_only_the_exclusive(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held(path, shared=True), held(path, shared=True):
        assert try_lock(path) is None
    with held(path):
        pass


@pytest.mark.parametrize("shared", [False, True])
def test_a_wait_says_who_and_for_how_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    lines: list[str] = []
    path = tmp_path / "lock"
    with (
        another_process("lock", path) as process,
        pytest.raises(UserError) as caught,
        held(path, shared=shared, on_wait=lines.append),
    ):
        pytest.fail("the lock was not exclusive")
    (line,) = lines
    assert line.startswith(f"waiting for process {process.pid} on ")
    assert line.endswith(", for at most 0 s (WANC_LOCK_TIMEOUT)")
    assert f"still held by process {process.pid} on " in caught.value.message
    assert caught.value.hint and "WANC_LOCK_TIMEOUT" in caught.value.hint
    assert 64 <= caught.value.exit_code <= 78


def test_a_wait_without_a_listener_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    with held(tmp_path / "lock"), caplog.at_level(logging.WARNING), pytest.raises(UserError), held(tmp_path / "lock"):
        pass
    assert "(WANC_LOCK_TIMEOUT)" in caplog.text


def test_a_wait_ends_when_the_holder_lets_go(tmp_path: Path) -> None:
    first, waiting = threading.Event(), threading.Event()

    def hold() -> None:
        with held(tmp_path / "lock"):
            first.set()
            waiting.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    first.wait(30)
    with held(tmp_path / "lock", on_wait=lambda _: waiting.set()):
        thread.join(30)
    assert waiting.is_set()


def test_a_killed_holder_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    with another_process("lock", tmp_path / "lock") as process:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        with held(tmp_path / "lock"):
            pass


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "1s"])
def test_a_time_out_that_is_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", text)
    refusal = pytest.raises(UserError, match="must be a number of seconds")
    with held(tmp_path / "lock"), refusal as caught, held(tmp_path / "lock"):
        pass
    assert caught.value.exit_code == EXIT_USAGE


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError), held(tmp_path / "lock"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_note_that_is_not_text_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    with held(tmp_path / "lock"):
        (tmp_path / "lock").write_bytes(b"\x1b[31m\xff")
        with pytest.raises(UserError, match="held by another process"), held(tmp_path / "lock"):
            pass


def test_a_private_directory_is_removed_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), private_directory(tmp_path, prefix="a.", suffix=".z") as directory:
        assert directory.name.startswith("a.") and directory.name.endswith(".z")
        assert directory.stat().st_mode & 0o7777 == 0o700
        (directory / "tree").mkdir()
        (directory / "tree/file").write_bytes(b"")
        (directory / "link").symlink_to(tmp_path)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_takes_only_what_nobody_holds(tmp_path: Path) -> None:
    with another_process("directory", tmp_path) as process, private_directory(tmp_path) as ours:
        assert list(abandoned(tmp_path)) == []
        (dead,) = set(tmp_path.iterdir()) - {ours}
        process.kill()
        process.wait(30)
        assert list(abandoned(tmp_path)) == [dead]
        assert list(tmp_path.iterdir()) == [ours]


def test_a_sweep_takes_only_what_has_its_names(tmp_path: Path) -> None:
    for name in (".a.0123.z", ".a.b.0123.z", ".a.0123", "a.0123.z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / LOCK_NAME).write_bytes(b"")
    (tmp_path / ".a.file.z").write_bytes(b"")
    (tmp_path / ".a.link.z").symlink_to("a.0123.z")
    assert [path.name for path in abandoned(tmp_path, prefix=".a.", suffix=".z")] == [".a.0123.z"]
    assert len(list(tmp_path.iterdir())) == 5


def test_a_sweep_removes_what_died_before_its_lock(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_bytes(b"")
    assert list(abandoned(tmp_path)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_directory_swept_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps: list[Path] = []

    def sweep_first(path: Path, **options: bool) -> int | None:
        if not sweeps:
            sweeps.append(path.parent)
            path.parent.rmdir()
        return try_lock(path, **options)

    monkeypatch.setattr("wanc.artifacts.private.try_lock", sweep_first)
    with private_directory(tmp_path) as directory:
        assert directory != sweeps[0]
        assert (directory / LOCK_NAME).exists()


def test_a_lock_file_removed_between_open_and_lock_is_not_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    original = os.open

    def open_and_lose(*arguments: object, **named: object) -> int:
        descriptor = original(*arguments, **named)  # type: ignore[arg-type]
        path.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    assert try_lock(path) is None
