"""Writing files so that they are whole or absent after a crash, and so that a full disk is a plain error.

The order is always: write a private file, fsync it, rename it, fsync the directory. A descriptor whose fsync failed is
never used again (Linux may have dropped the dirty pages): the private file is abandoned as a whole.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from wanc.errors import EXIT_NO_INPUT, OutputError, UserError
from wanc.runtime.folder import identity_of
from wanc.runtime.safe_read import CHUNK_BYTES, OnBytes, sha256_of
from wanc.runtime.strict_json import MAX_BYTES

LARGE_FILE_BYTES = 64 * 2**20
"""Above this size, space is reserved before writing, and blobs may be located instead of stored."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_FICLONE = 0x40049409  # linux/fs.h: share the extents of another file


@contextmanager
def output_errors(path: Path, needed: int = 0) -> Generator[None]:
    """Turns an OSError from writing `path` into an OutputError; `needed` is the number of bytes still to be written."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _no_space(path, needed) from error
        if error.errno == errno.EFBIG:
            raise OutputError(
                f"a file of {needed} bytes is larger than allowed here; {free_bytes(path)} bytes are free",
                where=str(path),
                hint="raise the file size limit (ulimit -f), or use a file system that takes files of this size",
            ) from error
        raise OutputError("cannot be written", where=str(path)) from error


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write on the file system of `path`, which need not exist yet."""
    for place in (path, *path.parents):
        with suppress(OSError):
            status = os.statvfs(place)
            return status.f_bavail * status.f_frsize
    return 0


def require_space(directory: Path, needed: int) -> None:
    """Raises OutputError when fewer than `needed` bytes are free where `directory` lies, before any are written."""
    if free_bytes(directory) < needed:
        raise _no_space(directory, needed)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Make every file and directory below `root`, and `root` itself, durable. Raises OSError."""
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(directory))


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file that does not exist yet and fsync it, with exactly this mode. Raises OutputError."""
    with output_errors(path, len(data)), _created(path, mode) as descriptor:
        _write_all(descriptor, data)
        os.fsync(descriptor)


def replace_file(path: Path, data: bytes, *, workdir: Path, mode: int = 0o644) -> None:
    """Replace `path`, or create it, as a whole. `workdir` is a private directory on the same file system.

    Raises OutputError, and then leaves `path` as it was.
    """
    staged = workdir / f"{path.name}.new"
    write_new(staged, data, mode=mode)
    with output_errors(path, len(data)):
        os.replace(staged, path)
        sync_directory(path.parent)


def put_in_place(written: Path, path: Path) -> None:
    """Rename a file that is complete; whatever happens, a reader finds what was at `path` before, or all of it."""
    with written.open("rb") as stream:
        os.fsync(stream.fileno())
    written.replace(path)


def copy_file(
    source: Path, destination: Path, *, mode: int = 0o644, on_bytes: OnBytes | None = None
) -> tuple[str, int]:
    """Copy the content of `source` to the new file `destination`, hashing what is written, and fsync it.

    Where the file system can, the two share their blocks. Returns ("sha256:<64 hex>", size in bytes). Raises
    UserError when `source` cannot be read, OutputError when `destination` cannot be written.
    """
    with opened_input(source) as reading:
        size = os.fstat(reading).st_size
        with output_errors(destination, size), _created(destination, mode) as writing:
            if _shared_blocks(reading, writing):
                digest, count = sha256_of(writing, on_bytes)
            else:
                _reserve(writing, size)
                digest, count = _copy(reading, writing, source, on_bytes)
                os.ftruncate(writing, count)  # the reserve may be longer than what a changing source held
            os.fsync(writing)
    return digest, count


def read_small(path: Path, most: int = MAX_BYTES) -> bytes:
    """The bytes of a file that should hold at most `most`, and one more where it does not: parsers refuse that.

    Raises OSError. Does not wait where a FIFO has taken the file's place.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        return file.read(most + 1)


def identity_text(status: os.stat_result) -> str:
    """What a file is recognised by without being read, as records hold it."""
    return ":".join(map(str, identity_of(status)))


def looks_of(path: Path) -> tuple[int, int, int, int]:
    """What tells a change of a file: inode, size in bytes, times of change in nanoseconds. Raises OSError.

    The number of the device, by which one machine tells files apart, is another one on each.
    """
    return identity_of(path.stat())[1:]


def hash_file(path: Path, on_bytes: OnBytes | None = None) -> tuple[str, int]:
    """("sha256:<64 hex>", size in bytes) of a file. Raises UserError when it cannot be read."""
    with opened_input(path) as descriptor:
        return sha256_of(descriptor, on_bytes)


@contextmanager
def opened_input(path: Path) -> Generator[int]:
    """A descriptor for reading a file that the user named; links are followed.

    Raises UserError when it cannot be opened, is not a regular file, or fails to be read in the body.
    """
    with _input_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hang the build
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError("is not a regular file", where=str(path), exit_code=EXIT_NO_INPUT)
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _input_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise UserError("cannot be read", where=str(path), exit_code=EXIT_NO_INPUT) from error


@contextmanager
def _created(path: Path, mode: int) -> Generator[int]:
    """A descriptor of a new file, which is removed again when the body fails."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, mode)  # not through open(): the umask must not decide what is shipped
        yield descriptor
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def _shared_blocks(reading: int, writing: int) -> bool:
    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError:
        return False
    return True


def _reserve(descriptor: int, size: int) -> None:
    """Fail at once, not after an hour, when a large file will not fit. ftruncate reserves nothing."""
    if size <= LARGE_FILE_BYTES:
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
            raise


def _copy(reading: int, writing: int, source: Path, on_bytes: OnBytes | None) -> tuple[str, int]:
    digest = hashlib.sha256()
    total = 0
    while True:
        with _input_errors(source):
            chunk = os.read(reading, CHUNK_BYTES)
        if not chunk:
            return f"sha256:{digest.hexdigest()}", total
        _write_all(writing, chunk)
        digest.update(chunk)
        total += len(chunk)
        if on_bytes:
            on_bytes(len(chunk))


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _no_space(path: Path, needed: int) -> OutputError:
    return OutputError(
        f"no space left: {needed} bytes needed, {free_bytes(path)} bytes free",
        where=str(path),
        hint="free some space, or choose a directory on another file system",
    )
