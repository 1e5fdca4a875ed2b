"""Files that appear complete or not at all, and that replace nothing but an ordinary file.

A file grows under a name of its own in the folder where it will be, `.wanc-….part`, which its writer holds locked. The
kernel frees the lock of a writer that was killed: the next one in that folder removes what it left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .destination import STDOUT, reporting, require_outside_bundles, require_replaceable
from .ending import unfinished
from .errors import UserError

MODE = 0o644
BLOCK_BYTES = 4096

_PART = re.compile(r"\.wanc-[0-9a-f]{16}\.part")


@contextmanager
def whole_file(path: Path, what: str) -> Generator[IO[bytes]]:
    """A stream that becomes the file at `path`, mode 0644, when the block ends well; `what` names it in errors.

    It can be read, written and sought. An ordinary file that is there already is replaced, nothing else is: see
    `require_writable`, which this begins with. What comes to the name while the block runs is looked at again before
    it is replaced; only what takes an ordinary file's place within that last instant is lost. Errors of the block are
    not this function's: see `reporting`.

    Raises:
        UserError: exit code 74; there is something else, the folder is missing or cannot be written to, the disk is
            full or fails. Exit code 2; the file would lie inside a bundle.
    """
    with _begun(path, what) as file:
        yield file
        with reporting(path, what):
            file.flush()
            if path == STDOUT:
                file.seek(0)
                sys.stdout.flush()
                with open(1, "wb", closefd=False) as stdout:
                    shutil.copyfileobj(file, stdout)
            else:
                os.fsync(file.fileno())
                _put_in_place(Path(file.name), path, what)


def write_whole(path: Path, data: bytes, what: str) -> None:
    """The same for content that is there already. Raises what `whole_file` raises."""
    with whole_file(path, what) as file, reporting(path, what):
        file.write(data)


def require_writable(path: Path, what: str) -> None:
    """Find out before the work whether `whole_file` could write the file, by beginning it. Raises what that raises."""
    with _begun(path, what):
        pass


@contextmanager
def _begun(path: Path, what: str) -> Generator[IO[bytes]]:
    """A private file that may become the one at `path`, or go to standard output; it goes away at the end."""
    with reporting(path, what):
        if path == STDOUT:
            from tempfile import TemporaryFile  # imported late: hardly anybody needs it

            _require_stdout(what)
            file, part = TemporaryFile(), None  # noqa: SIM115
        else:
            require_outside_bundles(path)
            require_replaceable(path, what)
            file = _new_part(path.parent)
            part = Path(file.name)
            unfinished.add(part)
    try:
        with reporting(path, what):
            _require_room(file)
        yield file
    finally:
        if part is not None:
            with suppress(OSError):  # it has its own name by now
                part.unlink()
            unfinished.discard(part)
        with suppress(OSError):  # what is left in the buffer of a file that failed
            file.close()


def _require_stdout(what: str) -> None:
    if sys.stdout is None:  # closed before we began: its number may be another file's by now
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if os.isatty(1):
        raise UserError(f"{what} would be written to a terminal", hint="redirect standard output, or name a file")


def _require_room(file: IO[bytes]) -> None:
    """Raises OSError where not a single block is left: a disk that is full before the work."""
    file.write(bytes(BLOCK_BYTES))
    file.flush()
    file.seek(0)
    file.truncate()


def _new_part(folder: Path) -> IO[bytes]:
    """A new file in the folder, locked, with permissions that do not depend on the umask."""
    _sweep(folder)
    while True:
        file = open(folder / f".wanc-{secrets.token_hex(8)}.part", "x+b")  # noqa: SIM115
        if _is_locked(file):
            with suppress(OSError):  # some file systems know one mode only
                os.fchmod(file.fileno(), MODE)
            return file
        file.close()


def _is_locked(file: IO[bytes]) -> bool:
    """Lock a new file. False where a sweep was faster, which took it for one that was left."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: there nothing is swept either
        return True
    return os.fstat(file.fileno()).st_nlink > 0


def _sweep(folder: Path) -> None:
    """Remove what writers left in the folder that were killed: their locks are free."""
    with suppress(OSError):  # it cannot be listed, or not be opened: that shows when something is written
        for name in filter(_PART.fullmatch, os.listdir(folder)):
            with suppress(OSError):  # it is locked, or not ours
                _remove_abandoned(folder / name)


def _remove_abandoned(part: Path) -> None:
    descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            part.unlink()
    finally:
        os.close(descriptor)


def _put_in_place(part: Path, path: Path, what: str) -> None:
    with suppress(OSError):  # something is there, or the file system knows no links
        os.link(part, path)  # unlike a rename it never replaces what came there meanwhile
        return
    require_replaceable(path, what)
    os.replace(part, path)
