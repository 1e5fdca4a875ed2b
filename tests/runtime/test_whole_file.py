"""Files that appear complete or not at all, whatever is in their place, and whatever happens to who writes them."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.runtime.destination import reporting
from wanc.runtime.errors import UserError
from wanc.runtime.whole_file import MODE, require_writable, whole_file

from ..conftest import ROOT
from ..faults.strace import needs_strace
from ..in_the_way import IN_THE_WAY, needs_root

WRITE = """
import sys
from pathlib import Path
from wanc.runtime.whole_file import whole_file

with whole_file(Path(sys.argv[1]), "the text") as file:
    file.write(b"half")
    print("writing", flush=True)
    sys.stdin.readline()
    file.write(b" and half")
"""


def write(path: Path, content: bytes = b"new") -> None:
    with whole_file(path, "the text") as file:
        file.write(content)


def writer(path: Path) -> subprocess.Popen[str]:
    """A process in the middle of writing a file: a line on its standard input lets it finish."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", WRITE, path], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def parts(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".part"))


def refused(path: Path, act: Callable[[Path], None] = write) -> UserError:
    with pytest.raises(UserError) as caught:
        act(path)
    return caught.value


def test_a_file_appears_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with whole_file(path, "the text") as file:
        file.write(b"new")
        assert not path.exists()
        assert len(parts(tmp_path)) == 1
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", MODE)
    assert os.listdir(tmp_path) == ["out"]


def test_an_ordinary_file_is_replaced_and_its_other_names_are_not(tmp_path: Path) -> None:
    path, other = tmp_path / "out", tmp_path / "other"
    path.write_bytes(b"old")
    other.hardlink_to(path)
    write(path)
    assert (path.read_bytes(), other.read_bytes()) == (b"new", b"old")
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


def test_a_name_may_be_as_long_as_the_file_system_lets_it(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 255))
    error = refused(tmp_path / ("x" * 256))
    assert (error.exit_code, str(error.__cause__)[:10]) == (74, "[Errno 36]")
    assert os.listdir(tmp_path) == ["x" * 255]


@pytest.mark.parametrize("begin", [write, lambda path: require_writable(path, "the text")], ids=["write", "ask"])
@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_what_is_no_ordinary_file_is_left_as_it_is(tmp_path: Path, kind: str, begin: Callable[[Path], None]) -> None:
    path = tmp_path / "out"
    words = IN_THE_WAY[kind](path)
    before = os.lstat(path)
    error = refused(path, begin)
    assert (error.exit_code, error.where) == (74, str(path))
    assert words in f"{error.message} {error.__cause__}"
    assert (os.lstat(path).st_ino, os.lstat(path).st_mode) == (before.st_ino, before.st_mode)
    assert not parts(tmp_path)


@pytest.mark.parametrize("kind", IN_THE_WAY)
@pytest.mark.parametrize("earlier", [None, b"old"], ids=["new", "over an older file"])
def test_so_is_what_came_there_meanwhile(tmp_path: Path, kind: str, earlier: bytes | None) -> None:
    path = tmp_path / "out"
    if earlier is not None:
        path.write_bytes(earlier)

    def act(path: Path) -> None:
        with whole_file(path, "the text") as file:
            file.write(b"new")
            path.unlink(missing_ok=True)
            IN_THE_WAY[kind](path)

    error = refused(path, act)
    assert error.exit_code == 74
    assert not stat.S_ISREG(os.lstat(path).st_mode)
    assert not parts(tmp_path)


def test_an_ordinary_file_that_came_there_meanwhile_is_replaced(tmp_path: Path) -> None:
    """As if it had been there before: of two runs that write one file the last one counts."""
    with whole_file(tmp_path / "out", "the text") as file:
        file.write(b"new")
        write(tmp_path / "out", b"other")
    assert (tmp_path / "out").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out"]


def test_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    write(tmp_path / "out", b"first")
    write(tmp_path / "out", b"second")
    assert (tmp_path / "out").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_on_the_way_is_ordinary(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link" / "out")
    assert (tmp_path / "real" / "out").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "cause"),
    [("absent/out", "No such file"), ("file/out", "Not a directory"), ("round/out", "Too many levels of symbolic")],
)
def test_where_no_folder_is(tmp_path: Path, name: str, cause: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "round").symlink_to("round")
    error = refused(tmp_path / name, lambda path: require_writable(path, "the text"))
    assert (error.exit_code, error.message) == (74, "the text cannot be written")
    assert cause in str(error.__cause__)


@pytest.mark.parametrize("name", ["out", "deep/down/out"])
def test_nothing_is_written_into_a_bundle(tmp_path: Path, name: str) -> None:
    """Of whatever bundle: it is told by its mark, also through a link."""
    bundle = tmp_path / "bundle"
    (bundle / "deep" / "down").mkdir(parents=True)
    (bundle / "WANC").write_text("wanc-bundle 1\n")
    (tmp_path / "link").symlink_to(bundle)
    for folder in (bundle, tmp_path / "link"):
        error = refused(folder / name)
        assert (error.exit_code, error.where) == (2, str(folder / name))
        assert "inside the bundle" in error.message
    assert not [path for path in bundle.rglob("*") if path.name == "out"]


@pytest.mark.parametrize("mark", ["fifo", "folder", "other"])
def test_a_folder_that_only_looks_like_a_bundle(tmp_path: Path, mark: str) -> None:
    {"fifo": os.mkfifo, "folder": Path.mkdir, "other": lambda path: path.write_text("mine")}[mark](tmp_path / "WANC")
    write(tmp_path / "out")


def test_errors_of_the_block_are_its_own(tmp_path: Path) -> None:
    """The work that is done meanwhile may fail to read something: that is not a file that cannot be written."""
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "out", "the text"):
        (tmp_path / "absent").read_bytes()
    assert os.listdir(tmp_path) == []


def test_a_stream_that_cannot_be_emptied_hides_no_other_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), whole_file(tmp_path / "out", "the text") as file:
        file.write(b"in the buffer")
        os.close(file.fileno())
        os.open(os.devnull, os.O_RDONLY)  # takes the number: writing fails
        raise KeyError
    assert os.listdir(tmp_path) == []


@needs_root
def test_a_file_that_is_mounted_by_itself(tmp_path: Path) -> None:
    """As containers do it. It cannot be replaced, which is known before."""
    path, there = tmp_path / "out put é", tmp_path / "there"
    path.write_bytes(b"old")
    there.write_bytes(b"theirs")
    subprocess.run(["mount", "--bind", there, path], check=True)
    try:
        error = refused(path, lambda path: require_writable(path, "the text"))
        assert (error.exit_code, str(error.__cause__)) == (74, "[Errno 16] Device or resource busy")
        with pytest.raises(OSError, match="busy"):
            os.replace(there, path)
    finally:
        subprocess.run(["umount", path], check=True)
    write(path)


@needs_root
def test_the_file_of_somebody_else_where_files_are_their_owners() -> None:
    """As in /tmp: known before, not when it is to be replaced."""
    nobody, folder = 65534, Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o1777)
        for name, owner in (("theirs", 0), ("ours", nobody)):
            (folder / name).touch()
            os.chown(folder / name, owner, owner)
        os.seteuid(nobody)
        error = refused(folder / "theirs", lambda path: require_writable(path, "the text"))
        assert (error.exit_code, str(error.__cause__)) == (74, "[Errno 1] Operation not permitted")
        write(folder / "ours")
        write(folder / "new")
        with pytest.raises(PermissionError):
            os.replace(folder / "new", folder / "theirs")
    finally:
        os.seteuid(0)
        shutil.rmtree(folder)


# Who writes is killed


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    with writer(tmp_path / "out") as process:
        process.kill()
    assert len(parts(tmp_path)) == 1, "there is something to remove"
    write(tmp_path / "another")
    assert parts(tmp_path) == []
    assert (tmp_path / "out").read_bytes() == b"old"


AT_ONCE = """
import sys
from pathlib import Path
from wanc.runtime.whole_file import whole_file

with whole_file(Path(sys.argv[1]), "the text") as file:
    file.write(b"new")
"""


@needs_strace
@pytest.mark.parametrize("earlier", [None, b"old"], ids=["new", "over an older file"])
@pytest.mark.parametrize("syscall", ["flock", "fchmod", "ftruncate", "fsync", "link", "rename", "unlink"])
def test_a_kill_at_a_system_call_leaves_a_whole_file_or_what_was_there(
    tmp_path: Path, syscall: str, earlier: bytes | None
) -> None:
    path = tmp_path / "out"
    if earlier is not None:
        path.write_bytes(earlier)
    kill = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={syscall}", "-e", f"inject={syscall}:signal=KILL:when=1"]
    killed = subprocess.run([*kill, sys.executable, "-c", AT_ONCE, path], cwd=ROOT, check=False)
    reached = syscall != "rename" or earlier is not None  # where nothing was there, a link is all that it takes
    assert killed.returncode == (-signal.SIGKILL if reached else 0)
    assert (path.read_bytes() if path.exists() else None) in (earlier, b"new")
    write(tmp_path / "another")
    assert parts(tmp_path) == []


def test_the_file_of_a_living_writer_stays(tmp_path: Path) -> None:
    with writer(tmp_path / "out") as process:
        before = parts(tmp_path)
        write(tmp_path / "another")
        require_writable(tmp_path / "out", "the text")
        assert parts(tmp_path) == before
        process.communicate("go on\n")
    assert process.returncode == 0
    assert (tmp_path / "out").read_bytes() == b"half and half"
    assert parts(tmp_path) == []


def test_a_stopped_writer_lives(tmp_path: Path) -> None:
    with writer(tmp_path / "out") as process:
        process.send_signal(signal.SIGSTOP)
        write(tmp_path / "another")
        assert len(parts(tmp_path)) == 1
        process.send_signal(signal.SIGCONT)
        process.communicate("go on\n")
    assert (tmp_path / "out").read_bytes() == b"half and half"


def test_what_others_called_almost_the_same_stays(tmp_path: Path) -> None:
    names = [".film.mp4.part", ".wanc-0123456789abcdef.part.txt", "wanc-0123456789abcdef.part", ".wanc-01.part"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / ".wanc-0123456789abcde0.part").mkdir()
    os.mkfifo(tmp_path / ".wanc-0123456789abcde1.part")
    (tmp_path / "mine").touch()
    (tmp_path / ".wanc-0123456789abcde2.part").symlink_to("mine")
    before = sorted(os.listdir(tmp_path))
    write(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "out"])


MANY = """
import sys
from pathlib import Path
from wanc.runtime.whole_file import whole_file

for number in range(200):
    with whole_file(Path(sys.argv[1]) / f"{sys.argv[2]}-{number}", "the text") as file:
        file.write(b"whole")
"""


def test_many_writers_in_one_folder_take_nothing_from_each_other(tmp_path: Path) -> None:
    """A sweep meets files that were just made and are not locked yet."""
    command = [sys.executable, "-c", MANY, tmp_path]
    processes = [subprocess.Popen([*command, str(number)], cwd=ROOT) for number in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"whole"}
    assert len(os.listdir(tmp_path)) == 600


def test_a_file_that_a_sweep_took_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = fcntl.flock, list[str]()

    def swept(file: object, operation: int) -> None:
        if not taken:
            taken.extend(parts(tmp_path))
            (tmp_path / taken[0]).unlink()
        lock(file, operation)  # type: ignore[arg-type]

    monkeypatch.setattr("fcntl.flock", swept)
    write(tmp_path / "out")
    assert len(taken) == 1
    assert (tmp_path / "out").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out"]


# Disks


@needs_root
def test_a_file_system_that_is_full_or_read_only(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=True)
    try:
        (disk / "large").write_bytes(bytes(2**16))
        error = refused(disk / "out", lambda path: require_writable(path, "the text"))
        assert (error.exit_code, str(error.__cause__)[:10]) == (74, "[Errno 28]")
        (disk / "large").unlink()
        (disk / "out").write_bytes(b"old")
        where = (disk / "out", "the text")
        with pytest.raises(UserError) as caught, whole_file(*where) as file, reporting(*where):
            file.write(bytes(2**17))
        assert (caught.value.exit_code, str(caught.value.__cause__)) == (74, "[Errno 28] No space left on device")
        assert {path.name: path.read_bytes() for path in disk.iterdir()} == {"out": b"old"}
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        error = refused(disk / "out", lambda path: require_writable(path, "the text"))
        assert (error.exit_code, str(error.__cause__)[:10]) == (74, "[Errno 30]")
    finally:
        subprocess.run(["umount", disk], check=True)


# Standard output


def run(code: str, **streams: object) -> subprocess.CompletedProcess[bytes]:
    header = "from wanc.runtime.destination import STDOUT\nfrom wanc.runtime.whole_file import whole_file\n"
    return subprocess.run([sys.executable, "-c", header + code], cwd=ROOT, check=False, **streams)  # type: ignore[call-overload]


TO_STDOUT = (
    'with whole_file(STDOUT, "the text") as file:\n  file.seek(3); file.write(b"end"); file.seek(0); file.write(b"the")'
)


def test_standard_output_gets_the_file_when_it_is_whole() -> None:
    assert run(TO_STDOUT, capture_output=True).stdout == b"theend"
    failed = run(f"{TO_STDOUT}; raise KeyError", capture_output=True)
    assert failed.stdout == b"" and b"KeyError" in failed.stderr


def test_standard_output_that_cannot_be_written() -> None:
    with open("/dev/full", "wb") as full:
        assert b"UserError: -: the text cannot be written" in run(TO_STDOUT, stdout=full, stderr=-1).stderr
    reading, writing = os.pipe()
    os.close(reading)
    assert b"UserError: -: the text cannot be written" in run(TO_STDOUT, stdout=writing, stderr=-1).stderr
    os.close(writing)
    closed = run(TO_STDOUT, stderr=-1, preexec_fn=lambda: os.close(1))
    assert b"UserError: -: the text cannot be written" in closed.stderr


def test_a_terminal_gets_no_bytes_of_a_file() -> None:
    master, terminal = os.openpty()
    finished = run(TO_STDOUT, stdout=terminal, stderr=-1)
    os.close(terminal)
    os.close(master)
    assert b"UserError: the text would be written to a terminal" in finished.stderr
