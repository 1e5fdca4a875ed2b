"""What may be where an output shall be written, and is not to be replaced by it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT_ALONE = "only root makes devices and mounts file systems"
needs_root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason=ROOT_ALONE)


def _fifo(path: Path) -> str:
    os.mkfifo(path)
    return "is a FIFO"


def _device(path: Path) -> str:
    """Another /dev/null."""
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    return "is a device"


def _folder(path: Path) -> str:
    path.mkdir()
    return "Is a directory"


def _socket(path: Path) -> str:
    # A socket's name has to be short, which that of its folder is not.
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)
    return "is a socket"


def _link(path: Path) -> str:
    target = path.with_name("target")
    target.write_bytes(b"somebody's")
    path.symlink_to(target)
    return "is a symbolic link"


def _dangling_link(path: Path) -> str:
    path.symlink_to(path.with_name("absent"))
    return "is a symbolic link"


def _standard_output(path: Path) -> str:
    """What /dev/stdout is."""
    path.symlink_to("/proc/self/fd/1")
    return "is a symbolic link"


IN_THE_WAY: Mapping[str, Callable[[Path], str]] = {
    "fifo": _fifo, "folder": _folder, "socket": _socket, "link": _link, "dangling link": _dangling_link,
    "standard output": _standard_output, **({"device": _device} if os.geteuid() == 0 else {}),
}  # fmt: skip
"""Each puts one there, and returns words of the message that names it."""
