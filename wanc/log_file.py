"""A log of what a command says: whole lines with the time, each in the file as soon as it is said.

What was logged before a crash is there after it. So a log is appended to and replaces nothing, unlike all else that is
written to a place that a user names; as to what may stand at that place the same rules hold.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from wanc.errors import EXIT_IO, UserError, render
from wanc.runtime.destination import STDOUT, reporting, require_outside_bundles, require_replaceable
from wanc.runtime.voice import say, speaking
from wanc.terminal import printable

WHAT = "the log"
MODE = 0o644
_BEGINS = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


class LogFile:
    """An open log. What cannot be written is remembered as `fault`: the work goes on without it."""

    def __init__(self, path: Path) -> None:
        """Raises UserError, exit code 74, where it cannot be written, and exit code 2 in a bundle."""
        if path == STDOUT:
            raise UserError(f"{WHAT} goes to a file", hint="all of it is on stderr with --verbose")
        require_outside_bundles(path)
        require_replaceable(path, WHAT)
        self.path, self.fault = path, None
        with reporting(path, WHAT):
            # What has come there since it was looked at is not followed, and a FIFO does not block.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, MODE)
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not an ordinary file")
            if status.st_size and not _BEGINS.match(os.pread(self._descriptor, 32, 0)):
                os.close(self._descriptor)
                raise UserError("is no log, and would be appended to", where=str(path), hint="name another file")
            if status.st_size and os.pread(self._descriptor, 1, status.st_size - 1) != b"\n":
                os.write(self._descriptor, b"\n")  # somebody's last line was not finished

    def write(self, text: str) -> None:
        """Append lines: each in one piece, so that those of several processes do not mix."""
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        # What else begins a line is shown as what it is.
        for line in text.rstrip("\n").split("\n"):
            data = f"{now} {printable(line)}\n".encode("utf-8", "backslashreplace")
            try:
                if self.fault is None and os.write(self._descriptor, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                self.fault = error

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._descriptor)


@contextmanager
def talking(*, quiet: bool, verbose: bool, log_file: Path | None, output: Path | None = None) -> Generator[None]:
    """For the length of a verb: say as much as is asked for, and log all of it, how it ended included.

    Raises UserError where both are asked for, where the log cannot be written or is the `output`, and at the end, with
    exit code 74, where it could not be written to its end.
    """
    if quiet and verbose:
        raise UserError("--quiet and --verbose exclude each other", hint="give one of them")
    if log_file and output and os.path.realpath(log_file) == os.path.realpath(output):
        raise UserError(f"{WHAT} and the output are one file", where=str(log_file), hint="name another for one of them")
    log = LogFile(log_file) if log_file is not None else None
    with speaking(quiet=quiet, verbose=verbose, write=log and log.write), _warnings():
        if log is None:
            yield
            return
        log.write(f"begins: {' '.join(sys.argv)}")
        try:
            yield
        except BaseException as error:
            log.write(_how(error))
            raise
        else:
            log.write("ends well")
        finally:
            log.close()
    if log.fault is not None:
        raise UserError(f"{WHAT} is not complete; what was made stands", where=str(log.path), exit_code=EXIT_IO) from (
            log.fault
        )


@contextmanager
def _warnings() -> Generator[None]:
    """What the library warns of is said as everything else is."""
    logger, handler = logging.getLogger("wanc"), _Saying(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Saying(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def _how(error: BaseException) -> str:
    if isinstance(error, UserError):
        return render(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Exception) and (code := getattr(error, "exit_code", None)) is not None:
        return f"ends with exit code {code}"
    if isinstance(error, SystemExit):
        return f"ends with exit code {error.code}"
    return "".join(traceback.format_exception(error))
