"""Where a file may be written: not over anything but an ordinary file, and not into a bundle."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import EXIT_IO, UserError
from .manifest import MARKER, MARKER_LINE
from .safe_read import irregularity

STDOUT = Path("-")
"""The name of standard output, which gets a file when it is complete."""


@contextmanager
def reporting(path: Path, what: str) -> Generator[None]:
    """Errors of the operating system become a UserError with exit code 74, also those that come through FFmpeg."""
    try:
        yield
    except Exception as error:
        # PyAV's are no OSErrors, but have their numbers; FFmpeg's own complaints have others: those are bugs.
        if not isinstance(error, OSError) and getattr(error, "errno", None) not in errno.errorcode:
            raise
        raise UserError(f"{what} cannot be written", where=str(path), exit_code=EXIT_IO) from error


def require_replaceable(path: Path, what: str) -> None:
    """Raises UserError, exit code 74, where something is at `path` that is no ordinary file, or not ours to replace.

    Nor is a link followed: who may write into the folder would choose which file is replaced.
    """
    with reporting(path, what), suppress(FileNotFoundError):
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise UserError(
                f"{irregularity(status)}, and {what} would take its place",
                where=str(path),
                hint="name the file itself; - is standard output"
                if stat.S_ISLNK(status.st_mode)
                else "name another file; - is standard output",
                exit_code=EXIT_IO,
            )
        folder = os.stat(path.parent)
        if folder.st_mode & stat.S_ISVTX and os.geteuid() not in (0, status.st_uid, folder.st_uid):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))  # as in /tmp, where files are their owners'
        if _is_mounted(path):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def require_outside_bundles(path: Path, kind: str = "file") -> None:
    """Raises UserError where the file or folder at `path` would lie in a bundle, whose seal that would break."""
    real = Path(os.path.realpath(path))
    if any(map(_is_bundle, (real, *real.parents))):
        raise UserError(
            "the output would lie inside the bundle, which is never written to",
            where=str(path),
            hint=f"name a {kind} elsewhere",
        )


def _is_mounted(path: Path) -> bool:
    """Whether the file is mounted by itself, as into a container: no other can take its place."""
    real = os.fsencode(os.path.realpath(path))
    with suppress(OSError):  # no Linux, or no /proc
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            # Spaces and the like are octal in there (proc_pid_mountinfo(5)).
            if re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), line.split()[4]) == real:
                return True
    return False


def _is_bundle(folder: Path) -> bool:
    """Whether it says that it is a bundle; not whether it is a sound one."""
    line = MARKER_LINE.encode()
    try:
        descriptor = os.open(folder / MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.read(descriptor, len(line)) == line
    except OSError:
        return False
    finally:
        os.close(descriptor)
