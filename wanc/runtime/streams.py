"""What a command prints to, looked at before the work: hours of it must not end in a report that nobody gets."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TextIO

from .errors import EXIT_IO, EXIT_NO_INPUT, UserError, render

_ALWAYS_FULL = (1, 7)
"""/dev/full, by its numbers: nothing but writing to it tells."""

drawn: list[Callable[[], None]] = []
"""Each erases a line that is being drawn on stderr, so that another one can be written there."""

_write: Callable[[str], None] | None = None


@contextmanager
def standard_streams() -> Generator[None]:
    """For the length of a command, or around a function: what it prints arrives, or its exit code says so.

    Exits before anything is done where stdout or stderr takes nothing (74) or the working directory is gone (66), and
    with 74 at the end where what was printed could not be written.
    """
    try:
        _check_streams()
        _check_folder()
    except UserError as error:
        complain(render(error))
        raise SystemExit(error.exit_code) from None
    try:
        yield
    except BrokenPipeError as error:
        complain(render(_unwritten(error)))
        _silence(sys.stdout)
        raise SystemExit(EXIT_IO) from None
    except BaseException as error:
        is_written = _flush()
        if is_written or not isinstance(error, SystemExit) or error.code:
            raise
        raise SystemExit(EXIT_IO) from None
    if not _flush():
        raise SystemExit(EXIT_IO)


def print_result(text: str, end: str = "\n") -> None:
    """Print on stdout, at once. Raises UserError with exit code 74 where that cannot be written."""
    log(text)
    try:
        # A file's name that is no text must not end a command whose work is done.
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), end=end, flush=True)
    except OSError as error:
        _silence(sys.stdout)
        raise _unwritten(error) from None


def complain(text: str) -> None:
    """A line for people on stderr, where there is one that takes it."""
    log(text)
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        return
    for erase in drawn:
        erase()
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


@contextmanager
def also_to(write: Callable[[str], None] | None) -> Generator[None]:
    """Hand all that is printed in the block to `write` as well."""
    global _write
    before, _write = _write, write
    try:
        yield
    finally:
        _write = before


def log(text: str) -> None:
    """Something for that alone."""
    if _write is not None:
        _write(text)


def _check_streams() -> None:
    for name, stream in (("stderr", sys.stderr), ("stdout", sys.stdout)):
        if fault := _fault(stream):
            raise UserError(f"{name} {fault}: let it lead somewhere, if only to /dev/null", exit_code=EXIT_IO)


def _check_folder() -> None:
    try:
        os.getcwd()
    except OSError:
        raise UserError("the working directory is gone: cd to one that exists", exit_code=EXIT_NO_INPUT) from None


def _fault(stream: TextIO | None) -> str | None:
    """Why nothing that is written there will arrive, as far as that shows without writing."""
    if stream is None:
        return "is closed"
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # whoever put something else in its place reads it
        return None
    if sys.platform == "win32":
        return None
    import fcntl
    import select

    try:
        status, flags = os.fstat(descriptor), fcntl.fcntl(descriptor, fcntl.F_GETFL)
    except OSError:
        return "is closed"
    if flags & os.O_ACCMODE == os.O_RDONLY:
        return "is only open for reading"
    if stat.S_ISREG(status.st_mode) and os.fstatvfs(descriptor).f_bfree == 0:
        return "lies on a full disk"
    if stat.S_ISCHR(status.st_mode) and (os.major(status.st_rdev), os.minor(status.st_rdev)) == _ALWAYS_FULL:
        return "is a device that is full"
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        return "is a pipe that nobody reads"
    return None


def _flush() -> bool:
    """Whether everything that was printed is written; if not, that is said."""
    try:
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]
            sys.stdout.flush()
    except OSError as error:
        complain(render(_unwritten(error)))
        _silence(sys.stdout)
        return False
    return True


def _unwritten(error: OSError) -> UserError:
    return UserError(f"stdout cannot be written ({error.strerror}); what was made stands", exit_code=EXIT_IO)


def _silence(stream: TextIO | None) -> None:
    """Lead a stream nowhere: at its end, Python would try once more to write what is left, and change the exit code."""
    if stream is not None:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
