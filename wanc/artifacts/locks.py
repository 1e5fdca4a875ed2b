"""Advisory locks that the kernel frees when their holder dies, whichever way it dies (flock).

flock and not a lock library: one call gives both the shared and the exclusive form, and neither falls back to files
that outlive their owner.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from wanc.artifacts.files import output_errors, read_small
from wanc.artifacts.timeout import timeout_seconds
from wanc.errors import EXIT_TEMPORARY, OutputError, UserError

TIMEOUT_VARIABLE = "WANC_LOCK_TIMEOUT"
DEFAULT_TIMEOUT_SECONDS = 300.0

OnWait = Callable[[str], None]
"""Is called once, before a wait, with one line about who is waited for and for how long."""

_POLL_SECONDS = 0.05
_log = logging.getLogger(__name__)


@contextmanager
def held(path: Path, *, shared: bool = False, on_wait: OnWait | None = None) -> Generator[None]:
    """Hold the lock file `path` (created when missing, never removed) for the length of the body.

    Raises UserError when others hold it for longer than the seconds in WANC_LOCK_TIMEOUT, by default 300.
    """
    descriptor = try_lock(path, shared=shared)
    if descriptor is None:
        descriptor = _wait(path, shared, on_wait or _log.warning)
    try:
        yield
    finally:
        release(descriptor)


def try_lock(path: Path, *, shared: bool = False, create: bool = True) -> int | None:
    """A descriptor that holds the lock, or None when another holds it or is removing the file.

    Raises FileNotFoundError when the file, or its directory, is missing and not to be created; OutputError when the
    file cannot be opened or locked.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OutputError("cannot be locked", where=str(path)) from error
    with output_errors(path):
        return _locked(descriptor, shared)


def release(descriptor: int) -> None:
    """Give the lock back, also where a forked child still has a copy of the descriptor."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, shared: bool) -> int | None:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink == 0:  # a sweep removed the file between our open and our lock
            raise BlockingIOError
        if not shared:
            _sign(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _wait(path: Path, shared: bool, on_wait: OnWait) -> int:
    seconds = timeout_seconds(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT_SECONDS, allow_zero=True)
    on_wait(f"waiting for {_holder(path)}, for at most {seconds:g} s ({TIMEOUT_VARIABLE})")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        descriptor = try_lock(path, shared=shared)
        if descriptor is not None:
            return descriptor
    raise UserError(
        f"still held by {_holder(path)} after {seconds:g} s",
        where=str(path),
        hint=f"wait for it to end, or set {TIMEOUT_VARIABLE} to the number of seconds to wait",
        exit_code=EXIT_TEMPORARY,
    )


def _sign(descriptor: int) -> None:
    """Say who holds the lock, for those who wait. Nothing depends on it, so it may fail."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


def _holder(path: Path) -> str:
    with suppress(OSError):
        text = read_small(path, 199).decode("ascii", "replace")
        if text.isprintable() and text:
            return text
    return "another process"
