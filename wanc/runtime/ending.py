"""Ending when told to, whatever native code is doing.

Python runs a signal's handler between two instructions of its own, and an engine may be busy for minutes in one. What
is written at once, by the handler in C, is a byte into a pipe: a thread waits for that, and ends the process if the
exception that the handler raises has not ended it by then.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import NoReturn

GRACE_SECONDS = 1.0
"""For unwinding: removing what is half-written takes milliseconds."""
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

unfinished: set[Path] = set()
"""Files that are being written, and folders that were made for them: what has no time for unwinding removes them."""


def clean_up_on_sigterm() -> None:
    """Let a signal that ends a process do so as an exception does, so that nothing half-written stays: 128 + signal."""
    for number in ENDING:
        _handle(number, _stop)


@contextmanager
def ending_on_signals() -> Generator[None]:
    """`with ending_on_signals():` the same, and SIGINT, within `GRACE_SECONDS` at most."""
    clean_up_on_sigterm()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        Thread(target=_end_late, args=(reading,), name="ending", daemon=True).start()
    except RuntimeError:
        # There cannot be another thread. The kernel needs none to end a process.
        os.close(reading)
        for number in (*ENDING, signal.SIGINT):
            _handle(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)


def _end_late(reading: int) -> None:
    watched = {*ENDING, signal.SIGINT}
    with suppress(OSError), os.fdopen(reading, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            if number[0] in watched:
                time.sleep(GRACE_SECONDS)
                # What lies in a folder goes before it.
                for path in sorted(unfinished, reverse=True):
                    with suppress(OSError):  # it has its own name by now, or its folder is gone
                        _remove(path)
                os._exit(128 + number[0])


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except IsADirectoryError:
        path.rmdir()  # unless something has come into it


def _handle(number: signal.Signals, handler: Callable[[int, FrameType | None], NoReturn] | signal.Handlers) -> None:
    if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1) asks for that
        signal.signal(number, handler)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
