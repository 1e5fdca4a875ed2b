"""What is said to people while something works: how much of it on stderr, and all of it in a log if there is one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from .streams import also_to, complain, log


@dataclass(frozen=True)
class Voice:
    """How much is said: `quiet` nothing but errors and results, `verbose` the reasons as well."""

    quiet: bool = False
    verbose: bool = False
    is_logged: bool = False


_voice = Voice()


@contextmanager
def speaking(*, quiet: bool, verbose: bool, write: Callable[[str], None] | None = None) -> Generator[None]:
    """For the length of a command: how much it says, and what else gets all of its lines."""
    global _voice
    before, _voice = _voice, Voice(quiet, verbose, write is not None)
    try:
        with also_to(write):
            yield
    finally:
        _voice = before


def say(text: str) -> None:
    """One line for people, of what happens. Where nobody can read it any more, the work goes on."""
    (log if _voice.quiet else complain)(text)


def explain(text: str) -> None:
    """One more line, for those who want to know why."""
    (complain if _voice.verbose else log)(text)


def is_asked_why() -> bool:
    """Whether anybody gets what `explain` is told: finding out may take a moment."""
    return _voice.verbose or _voice.is_logged


def shows_progress(*, as_json: bool) -> bool:
    """People at a terminal see how far it is; a program that reads JSON sees nothing else, unless it asked for more."""
    return not _voice.quiet and (_voice.verbose or sys.stderr.isatty() or not as_json)
