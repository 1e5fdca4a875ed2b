"""Opening and hashing files without ever following a link.

Checking a path as a string has been bypassed time and again (ONNX: ten CVEs in four years). Here every component is
opened relative to the directory before it, and what is checked is the open file, not its name.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager

from .errors import EXIT_NO_INPUT, BundleError

CHUNK_BYTES = 2**20

OnBytes = Callable[[int], None]
"""Is called with the number of bytes that were just read or written."""

Progress = Callable[[int, int], None]
"""Is called with (bytes done so far, bytes in total)."""


@contextmanager
def opened_beneath(directory: int, path: str) -> Generator[int]:
    """A descriptor of the file at `path`, "/"-separated and relative to the open `directory`.

    Raises OSError, with ELOOP or ENOTDIR when a component is a symbolic link. A FIFO does not block.
    """
    *parents, name = path.split("/")
    current = os.dup(directory)
    try:
        for parent in parents:
            following = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
            os.close(current)
            current = following
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=current)
    finally:
        os.close(current)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def irregularity(status: os.stat_result) -> str | None:
    """Why this is not an ordinary file of its own, or None when it is."""
    kinds = {
        stat.S_IFLNK: "is a symbolic link",
        stat.S_IFDIR: "is a directory",
        stat.S_IFIFO: "is a FIFO",
        stat.S_IFSOCK: "is a socket",
        stat.S_IFCHR: "is a device",
        stat.S_IFBLK: "is a device",
    }
    if not stat.S_ISREG(status.st_mode):
        return kinds.get(stat.S_IFMT(status.st_mode), "is not a regular file")
    return "is a hard link: another name can change it" if status.st_nlink > 1 else None


def read_whole(directory: int, path: str, *, max_bytes: int, where: str) -> bytes:
    """All bytes of a small file beneath `directory`, read once.

    Raises BundleError (`where` names the bundle) when it is missing, linked, not regular or larger than `max_bytes`.
    """
    name = f"{where}/{path}"
    try:
        with opened_beneath(directory, path) as descriptor:
            fault = irregularity(os.fstat(descriptor))
            if fault:
                raise BundleError(fault, where=name)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise BundleError(
            "is missing", where=name, hint="is this the directory of a bundle?", exit_code=EXIT_NO_INPUT
        ) from None
    except OSError as error:
        raise BundleError("cannot be read", where=name) from error
    if len(data) > max_bytes:
        raise BundleError(f"larger than the {max_bytes} bytes allowed", where=name)
    return data


def sha256_of(descriptor: int, on_bytes: OnBytes | None = None) -> tuple[str, int]:
    """("sha256:<64 hex>", bytes read) of an open file, from its current position to its end."""
    digest = hashlib.sha256()
    # No larger than the file: filling a buffer with zeros takes longer than hashing a small one. One byte more than it
    # has is what tells its end.
    buffer = memoryview(bytearray(min(CHUNK_BYTES, os.fstat(descriptor).st_size + 1)))
    total = 0
    while count := os.readv(descriptor, [buffer]):
        digest.update(buffer[:count])
        total += count
        if on_bytes:
            on_bytes(count)
    return f"sha256:{digest.hexdigest()}", total
