"""How far a long task is: what the library calls, and the bars with the time left that a terminal shows of it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TextIO

BAR_WIDTH = 24
REDRAW_SECONDS = 0.1


OnProgress = Callable[[str, int, int], None]
"""Is called with (phase, done so far, in total); the first time for a phase before anything of it is done."""


OnNote = Callable[[str], None]
"""Is called with a sentence for people, of what is not as it was asked for."""


def ignore(phase: str, done: int, total: int) -> None:
    """The progress that nobody wants to know of."""


def ignore_note(note: str) -> None:
    """The notes of whoever looks at the result."""


class ProgressBar:
    """`with ProgressBar("denoise", total=40) as bar: bar.advance(1)` draws a line on stderr and keeps it up to date.

    It draws on a terminal only, and in plain ASCII without colour: a log or a pipe sees nothing of it.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        enabled: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`total` counts what `advance` counts; `stream` is stderr unless given; `clock` tells seconds."""
        self._label = label
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        # A dumb terminal cannot return to the start of a line.
        self._draws = enabled and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._done = 0
        self._started = self._drawn = clock()

    def __enter__(self) -> ProgressBar:
        self._started = self._clock()
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaves the last state standing, so that one sees where a failure happened."""
        self._draw(end="\n")

    def advance(self, count: int = 1) -> None:
        """Counts `count` more as done."""
        self._done += count
        if self._clock() - self._drawn >= REDRAW_SECONDS:
            self._draw()

    def move_to(self, done: int, total: int) -> None:
        """Sets both counts: for work whose size shows only once it runs."""
        self._total = total
        self.advance(done - self._done)

    def _draw(self, end: str = "") -> None:
        if not self._draws:
            return
        self._drawn = self._clock()
        # A line as wide as the terminal would wrap, and the next carriage return would not reach its start.
        width = shutil.get_terminal_size().columns - 1
        # "\x1b[K" erases what a longer line left behind.
        with suppress(OSError):  # the terminal is gone: no reason to stop the work
            self._stream.write(f"\r{self._line()[:width]}\x1b[K{end}")
            self._stream.flush()

    def _line(self) -> str:
        share = min(self._done / self._total, 1.0) if self._total else 1.0
        bar = ("#" * round(BAR_WIDTH * share)).ljust(BAR_WIDTH, "-")
        elapsed = self._drawn - self._started
        line = f"{self._label} [{bar}] {self._done}/{self._total} {format_seconds(elapsed)}"
        if 0 < share < 1:
            line += f", {format_seconds(elapsed / share - elapsed)} left"
        return line


class Bars:
    """A bar for each phase: `with Bars() as on_progress: pipeline.generate("…", on_progress=on_progress)`."""

    def __init__(self, *, enabled: bool = True, stream: TextIO | None = None) -> None:
        self._enabled, self._stream = enabled, stream
        self._phase: str | None = None
        self._open = ExitStack()

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """An `OnProgress`."""
        if phase != self._phase:
            self._open.close()
            self._phase = phase
            self._bar = self._open.enter_context(ProgressBar(phase, total, enabled=self._enabled, stream=self._stream))
        self._bar.move_to(done, total)
        if done >= total:
            self._open.close()
            self._phase = None


def format_seconds(seconds: float) -> str:
    """75 as "1:15", 3675 as "1:01:15"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
