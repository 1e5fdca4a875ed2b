"""How far a long task is: what the library calls, and the bars with the time left that a terminal shows of it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from threading import Event, Lock, Thread
from types import TracebackType
from typing import TextIO

from .streams import drawn
from .time_left import TimeLeft

BAR_WIDTH = 24
REDRAW_SECONDS = 0.1
TICK_SECONDS = 1.0


OnProgress = Callable[[str, int, int], None]
"""Is called with (phase, done so far, in total); the first time for a phase before anything of it is done."""


OnNote = Callable[[str], None]
"""Is called with a sentence for people, of what is not as it was asked for."""


def ignore(phase: str, done: int, total: int) -> None:
    """The progress that nobody wants to know of."""


def ignore_note(note: str) -> None:
    """The notes of whoever looks at the result."""


_elsewhere: OnProgress | None = None


def report_to(on_progress: OnProgress) -> None:
    """For a process that works for another: its bars are drawn by that one, which is told of them here."""
    global _elsewhere
    _elsewhere = on_progress


class ProgressBar:
    """`with ProgressBar("denoise", total=40) as bar: bar.advance(1)` draws a line on stderr and keeps it up to date.

    It draws on a terminal only, and in plain ASCII without colour: a log or a pipe sees nothing of it. Its clock goes
    on while nothing is counted, and a time that is left is shown where it can be told (see `TimeLeft`).
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        *,
        enabled: bool = True,
        transient: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`total` counts what `advance` counts; None where that is not known yet.

        A `transient` one is erased when all went well. `stream` is stderr unless given; `clock` tells seconds.
        """
        self._label = label
        self._total = total
        self._transient = transient
        self._report = _elsewhere if enabled and stream is None else None
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        # A dumb terminal cannot return to the start of a line.
        self._draws = enabled and self._report is None and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._done = 0
        self._started = self._drawn = clock()
        self._left = TimeLeft(self._started)
        self._lock, self._ended = Lock(), Event()

    def __enter__(self) -> ProgressBar:
        self._started = self._clock()
        self._left = TimeLeft(self._started)
        self._show()
        if self._draws:
            drawn.append(self._erase)
            with suppress(RuntimeError):  # there cannot be another thread: then the clock goes when something is done
                Thread(target=self._tick, name="clock", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaves the last state standing, so that one sees where a failure happened."""
        self._ended.set()
        if self._draws:
            drawn.remove(self._erase)
        if self._transient and error is None:
            self._erase()
        else:
            self._show(end="\n")

    def advance(self, count: int = 1) -> None:
        """Counts `count` more as done."""
        self._done += count
        now = self._clock()
        self._left.note(self._done, now)
        if now - self._drawn >= REDRAW_SECONDS:
            self._show()

    def move_to(self, done: int, total: int) -> None:
        """Sets both counts: for work whose size shows only once it runs."""
        self._total = total
        self.advance(done - self._done)

    def _tick(self) -> None:
        """The clock's thread: what is executed meanwhile may say nothing for minutes."""
        while not self._ended.wait(TICK_SECONDS):
            with self._lock:
                if self._clock() - self._drawn >= TICK_SECONDS and not self._ended.is_set():
                    self._draw()

    def _show(self, end: str = "") -> None:
        if self._report is not None:
            self._drawn = self._clock()
            self._report(self._label, self._done, self._total or 0)
        elif self._draws:
            with self._lock:
                self._draw(end)

    def _erase(self) -> None:
        with self._lock:
            if self._draws:
                self._write("\r\x1b[K")

    def _draw(self, end: str = "") -> None:
        self._drawn = self._clock()
        # A line as wide as the terminal would wrap, and the next carriage return would not reach its start.
        width = shutil.get_terminal_size().columns - 1
        # "\x1b[K" erases what a longer line left behind.
        self._write(f"\r{self._line()[:width]}\x1b[K{end}")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal is gone: no reason to stop the work
            self._stream.write(text)
            self._stream.flush()

    def _line(self) -> str:
        elapsed = format_seconds(self._drawn - self._started)
        if self._total is None:
            return f"{self._label} {elapsed}"
        share = min(self._done / self._total, 1.0) if self._total else 1.0
        bar = ("#" * round(BAR_WIDTH * share)).ljust(BAR_WIDTH, "-")
        left = self._left.seconds(self._total, self._drawn)
        told = f", {format_seconds(left)} left" if left is not None else ""
        return f"{self._label} [{bar}] {self._done}/{self._total} {elapsed}{told}"


class Bars:
    """A bar for each phase: `with Bars() as on_progress: pipeline.generate("…", on_progress=on_progress)`.

    `transient` ones are erased when the next one begins or all is done; until then their clocks go on.
    """

    def __init__(self, *, enabled: bool = True, transient: bool = False, stream: TextIO | None = None) -> None:
        self._enabled, self._transient, self._stream = enabled, transient, stream
        self._phase: str | None = None
        self._open = ExitStack()

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    def __call__(self, phase: str, done: int, total: int) -> None:
        """An `OnProgress`."""
        if phase != self._phase:
            self.begin(phase)
        self._bar.move_to(done, total)
        if done >= total and not self._transient:
            self._open.close()
            self._phase = None

    def begin(self, phase: str) -> None:
        """A phase of which only the name is known so far."""
        self._open.close()
        self._phase = phase
        bar = ProgressBar(phase, enabled=self._enabled, transient=self._transient, stream=self._stream)
        self._bar = self._open.enter_context(bar)


def format_seconds(seconds: float) -> str:
    """75 as "1:15", 3675 as "1:01:15"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
