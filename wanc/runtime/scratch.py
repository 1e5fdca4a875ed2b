"""A file for what is too large for memory: it has no name, so that the kernel removes it however the process ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import EXIT_IO, UserError
from .pool import Empty, copied

VARIABLE = "TMPDIR"
ELSEWHERE = "/var/tmp"
"""Where no folder is named: a disk, where /tmp often is memory."""
CANNOT_RESERVE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


class Scratch:
    """A file of `size` bytes in the folder that TMPDIR names; there is room for all of it when it is made. What is read
    is put into arrays that `empty` makes.

    Raises UserError, exit code 74, where the folder is missing, cannot be written to or is full, and from `read` and
    `write` where the disk fails.
    """

    def __init__(self, size: int, empty: Empty = np.empty) -> None:
        self._empty = empty
        self._folder = os.environ.get(VARIABLE) or ELSEWHERE
        with self._told(size):
            self._file = TemporaryFile(dir=self._folder, prefix="wanc-", buffering=0)  # noqa: SIM115
            try:
                _reserve(self._file.fileno(), size)
            except BaseException:
                self._file.close()
                raise

    def write(self, offset: int, array: NDArray[Any]) -> None:
        """Put an array's bytes there."""
        data = _bytes_of(array if array.flags.c_contiguous else copied(array, self._empty))
        with self._told(len(data)):
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written

    def read(self, offset: int, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """An array that was put there."""
        array = self._empty(shape, dtype)
        data = _bytes_of(array)
        with self._told(len(data)):
            while data:
                count = os.preadv(self._file.fileno(), [data], offset)
                if not count:
                    raise OSError(errno.EIO, "the file has become shorter")
                data, offset = data[count:], offset + count
        return array

    def close(self) -> None:
        """Free the room."""
        self._file.close()

    @contextmanager
    def _told(self, size: int) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{size:,} bytes of decoded tiles cannot be kept in the folder for temporary files",
                where=self._folder,
                hint=f"set {VARIABLE} to a folder on a disk with more room",
                exit_code=EXIT_IO,
            ) from error


def require_room(size: int) -> None:
    """Find out before the work whether there is room for a scratch file, by making it. Raises what `Scratch` raises."""
    Scratch(size).close()


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """Those of a contiguous array, to be read or written."""
    return array.data.cast("B") if array.size else memoryview(b"")


def _reserve(descriptor: int, size: int) -> None:
    """Raises OSError where the file system has no room for so many bytes; some of them cannot say."""
    try:
        os.posix_fallocate(descriptor, 0, max(size, 1))
    except OSError as error:
        if error.errno not in CANNOT_RESERVE:
            raise
