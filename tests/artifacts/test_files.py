"""Files are whole or absent, and a disk that is full is an error that says what to do."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wanc.artifacts import files
from wanc.artifacts.files import copy_file, free_bytes, hash_file, output_errors, replace_file, require_space, write_new
from wanc.errors import EXIT_IO, EXIT_NO_INPUT, OutputError, UserError, render

from .builder import ROOT, Break, RunPython


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1])
def test_copies_are_hashed_as_they_are_written(tmp_path: Path, size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    (tmp_path / "source").write_bytes(data)
    counted: list[int] = []
    result = copy_file(tmp_path / "source", tmp_path / "copy", mode=0o640, on_bytes=counted.append)
    assert result == (digest(data), size) == hash_file(tmp_path / "source")
    assert (tmp_path / "copy").read_bytes() == data
    assert (tmp_path / "copy").stat().st_mode & 0o7777 == 0o640
    assert sum(counted) == size


def test_a_copy_that_shares_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a file system with reflinks: the request is right, and the result is hashed all the same."""

    def clone(writing: int, request: int, reading: int) -> int:
        assert request == 0x40049409
        os.pwrite(writing, os.pread(reading, 100, 0), 0)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    (tmp_path / "source").write_bytes(b"shared")
    assert copy_file(tmp_path / "source", tmp_path / "copy") == (digest(b"shared"), 6)
    assert (tmp_path / "copy").read_bytes() == b"shared"


@pytest.mark.parametrize(("size", "reserved"), [(10, False), (11, True)])
def test_space_is_reserved_above_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, reserved: bool
) -> None:
    monkeypatch.setattr(files, "LARGE_FILE_BYTES", 10)
    calls: list[int] = []
    monkeypatch.setattr(os, "posix_fallocate", lambda *arguments: calls.append(arguments[2]))
    (tmp_path / "source").write_bytes(b"x" * size)
    copy_file(tmp_path / "source", tmp_path / "copy")
    assert calls == ([size] if reserved else [])


@pytest.mark.parametrize(("code", "works"), [(errno.EOPNOTSUPP, True), (errno.EINVAL, True), (errno.ENOSPC, False)])
def test_reserving_is_optional_but_a_full_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, works: bool
) -> None:
    def fail(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "LARGE_FILE_BYTES", 0)
    monkeypatch.setattr(os, "posix_fallocate", fail)
    (tmp_path / "source").write_bytes(b"x")
    if works:
        copy_file(tmp_path / "source", tmp_path / "copy")
    else:
        with pytest.raises(OutputError, match=r"no space left: 1 bytes needed, \d+ bytes free"):
            copy_file(tmp_path / "source", tmp_path / "copy")
        assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("kind", ["absent", "directory", "fifo", "dangling"])
def test_sources_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    source = tmp_path / kind
    if kind == "directory":
        source.mkdir()
    elif kind == "fifo":
        os.mkfifo(source)
    elif kind == "dangling":
        source.symlink_to("nowhere")
    for read in (hash_file, lambda path: copy_file(path, tmp_path / "copy")):
        with pytest.raises(UserError) as caught:
            read(source)
        assert caught.value.exit_code == EXIT_NO_INPUT
        assert caught.value.where == str(source)
    assert not (tmp_path / "copy").exists()


def test_a_source_that_fails_is_not_blamed_on_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(b"x")

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(UserError) as caught:
        copy_file(tmp_path / "source", tmp_path / "copy")
    assert (caught.value.where, caught.value.exit_code) == (str(tmp_path / "source"), EXIT_NO_INPUT)
    assert not (tmp_path / "copy").exists()


def test_a_source_that_shrinks_leaves_no_reserved_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGE_FILE_BYTES", 0)
    source = tmp_path / "source"
    source.write_bytes(b"long content")
    reserve = os.posix_fallocate

    def shrink(descriptor: int, offset: int, length: int) -> None:
        reserve(descriptor, offset, length)
        source.write_bytes(b"short")

    monkeypatch.setattr(os, "posix_fallocate", shrink)
    assert copy_file(source, tmp_path / "copy") == (digest(b"short"), 5)
    assert (tmp_path / "copy").read_bytes() == b"short"


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OutputError):
        write_new(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_link_is_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OutputError):
        write_new(tmp_path / "link", b"new")
    assert not (tmp_path / "target").exists()


def test_replacing_is_old_or_new_at_every_step(tmp_path: Path, break_at: Break) -> None:
    def strike() -> None:
        raise OSError(errno.EIO, "Input/output error")

    for number in range(1, 50):
        workdir = tmp_path / str(number)
        workdir.mkdir()
        target = workdir / "target"
        target.write_bytes(b"old")
        private = workdir / "private"
        private.mkdir()
        reached = break_at(number, strike)
        try:
            replace_file(target, b"new", workdir=private)
        except OutputError as error:
            assert error.exit_code == EXIT_IO
        finally:
            was_reached = reached()
        assert target.read_bytes() in {b"old", b"new"}
        if not was_reached:
            assert target.read_bytes() == b"new"
            assert number > 4
            return
    pytest.fail("never got through")


def test_the_umask_decides_nothing(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_new(tmp_path / "file", b"", mode=0o755)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(tmp_path: Path, code: int) -> None:
    with pytest.raises(OutputError) as caught, output_errors(tmp_path / "out", 12345):
        raise OSError(code, os.strerror(code))
    assert caught.value.exit_code == EXIT_IO
    text = render(caught.value)
    assert text.startswith(f"error: {tmp_path}/out: no space left: 12345 bytes needed, ")
    assert " bytes free\ncaused by: " in text
    assert "\nhint: free some space" in text


def test_other_write_errors_keep_their_reason(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, output_errors(tmp_path):
        raise OSError(errno.EROFS, "Read-only file system")
    assert render(caught.value) == f"error: {tmp_path}: cannot be written\ncaused by: Read-only file system"


def test_errors_of_our_own_pass_unchanged(tmp_path: Path) -> None:
    fault = UserError("told already")
    with pytest.raises(UserError) as caught, output_errors(tmp_path):
        raise fault
    assert caught.value is fault


def test_space_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _: 1000)
    require_space(tmp_path, 1000)
    with pytest.raises(OutputError, match="1001 bytes needed, 1000 bytes free"):
        require_space(tmp_path, 1001)


def test_free_bytes_of_what_does_not_exist_yet(tmp_path: Path) -> None:
    assert abs(free_bytes(tmp_path / "a/b/c") - free_bytes(tmp_path)) < 2**30


LIMITED = """
import resource, sys
from pathlib import Path
from wanc.artifacts.files import copy_file, write_new
from wanc.errors import UserError, render
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
source, target = map(Path, sys.argv[1:3])
try:
    if sys.argv[3] == "copy":
        copy_file(source, target)
    else:
        write_new(target, source.read_bytes())
except UserError as error:
    print(render(error))
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("way", ["copy", "write"])
@pytest.mark.parametrize("size", [65536, 65537])
def test_file_size_limit_of_the_system(tmp_path: Path, run_python: RunPython, way: str, size: int) -> None:
    (tmp_path / "source").write_bytes(b"x" * size)
    result = run_python(LIMITED, tmp_path / "source", tmp_path / "target", way)
    if size == 65536:
        assert (result.returncode, result.stdout) == (0, "")
        return
    assert result.returncode == EXIT_IO
    assert result.stdout.startswith(f"error: {tmp_path}/target: a file of {size} bytes is larger than allowed here; ")
    assert "bytes are free" in result.stdout
    assert result.stderr == ""
    assert not (tmp_path / "target").exists()


FULL_DISK = """
import sys
from pathlib import Path
from wanc.artifacts.canonical import key_of
from wanc.artifacts.files import copy_file, require_space
from wanc.artifacts.store import Store
from wanc.errors import UserError, render
disk, source = map(Path, sys.argv[1:])
document = {"stage": "s"}
store = Store.open(disk / "store")
for attempt in ("full", "after space was freed"):
    try:
        with store.workdir() as workdir:
            (workdir / "out").mkdir()
            copy_file(source, workdir / "out/file")
            store.commit(key_of(document), stage="s", document=document, tree=workdir / "out", meta={})
        print("done", attempt)
    except UserError as error:
        assert error.exit_code == 74
        print(render(error))
        left = [path for path in store.root.rglob("*") if path.is_file()]
        assert [path.name for path in left] == ["VERSION"], left
        (disk / "ballast").unlink()
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk, source = tmp_path / "disk", tmp_path / "source"
    disk.mkdir()
    source.write_bytes(b"x" * 2**21)
    fill = 'mount -t tmpfs -o size=4m tmpfs "$1" && head -c 3000000 /dev/zero > "$1/ballast"'
    result: subprocess.CompletedProcess[str] = subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            fill + ' && exec "$2" -c "$3" "$1" "$4"',
            "sh",
            disk,
            sys.executable,
            FULL_DISK,
            source,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "Operation not permitted" in result.stderr or "must be superuser" in result.stderr:
        pytest.skip("needs the right to mount in a namespace of its own")
    assert result.stderr == ""
    assert "no space left: 2097152 bytes needed, " in result.stdout
    assert result.stdout.endswith("done after space was freed\n")
