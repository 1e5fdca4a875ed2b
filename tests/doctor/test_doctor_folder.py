"""The folder that builds write to: its file system, its space, and whether locks lock there."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from wanc.artifacts.mounts import file_system, is_remote
from wanc.doctor import folder
from wanc.doctor.folder import examine_folder

MOUNTS = """\
/dev/root / ext4 rw 0 0
proc /proc proc rw 0 0
server:/share /data nfs4 rw 0 0
/dev/sdb /data/local/disk xfs rw 0 0
tmpfs /data/a\\040b tmpfs rw 0 0
overlay /over overlay rw 0 0
server:/x /over cifs rw 0 0
odd
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/elsewhere/not/there/yet", "ext4"),
        ("/data", "nfs4"),
        ("/data/deeper", "nfs4"),
        ("/database", "ext4"),
        ("/data/local/disk/x", "xfs"),
        ("/data/local", "nfs4"),
        ("/data/a b/c", "tmpfs"),
        ("/over/x", "cifs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert file_system(Path(path), tmp_path / "mounts") == kind


def test_without_mounts_nothing_is_claimed(tmp_path: Path) -> None:
    assert file_system(tmp_path, tmp_path / "absent") == ""


def test_links_are_followed_to_where_the_files_lie(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(f"a / ext4 rw 0 0\nb {tmp_path}/real nfs rw 0 0\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert file_system(tmp_path / "link/below", tmp_path / "mounts") == "nfs"


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "lustre", "ceph"])
def test_remote_file_systems(kind: str) -> None:
    assert is_remote(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "fuseblk", "zfs", ""])
def test_local_file_systems(kind: str) -> None:
    assert not is_remote(kind)


def test_a_folder_that_will_be_made_is_as_good_as_its_parent(tmp_path: Path) -> None:
    found = examine_folder(tmp_path / "not/yet")
    assert (found.path, found.fault, found.is_remote) == (str(tmp_path / "not/yet"), None, False)
    assert found.free_bytes > 0
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_name_that_no_folder_can_have_is_looked_at_too(tmp_path: Path) -> None:
    assert examine_folder(tmp_path / ("a" * 5000)).free_bytes > 0


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert examine_folder(tmp_path / "file/below").fault == f"{tmp_path}/file is not a folder"


def test_a_folder_that_cannot_be_written() -> None:
    assert examine_folder(Path("/proc/wanc")).fault == "/proc cannot be written: No such file or directory"


def test_locks_that_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system that takes flock for a local matter, or for nothing."""
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: None)
    assert examine_folder(tmp_path).fault == "locks do not keep others out on this file system"


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(folder.fcntl, "flock", refuse)
    assert examine_folder(tmp_path).fault == "files cannot be locked on this file system: Operation not supported"
