"""Putting a finished directory in its place in one step, also where another one stands."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from wanc.artifacts.files import sync_directory

ASIDE = "replaced"
"""The name, within the private directory, under which a replaced directory waits to be removed."""

_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h
_CANNOT_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}


def publish(staged: Path, destination: Path) -> None:
    """Rename `staged`, a directory inside a private directory beside `destination`, into place.

    What stood there before ends up in the private directory. Whoever looks sees the old directory or the new one;
    only where the file system cannot exchange two names may they, for a moment, see none. Raises OSError.
    """
    if not os.path.lexists(destination):
        staged.rename(destination)
    elif not exchange(staged, destination):
        aside = staged.parent / ASIDE
        destination.rename(aside)
        try:
            staged.rename(destination)
        except BaseException:
            aside.rename(destination)
            raise
    sync_directory(destination.parent)


def recover(private: Path, destination: Path) -> None:
    """Put back what was set aside, when a process was killed between the two renames above. Raises OSError."""
    aside = private / ASIDE
    if aside.is_dir() and not os.path.lexists(destination):
        aside.rename(destination)
        sync_directory(destination.parent)


def exchange(first: Path, second: Path) -> bool:
    """Swap two names at once (renameat2, Linux 3.15). False where that is not possible; raises OSError if it fails."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(second))
