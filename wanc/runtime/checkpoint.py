"""Ending work that nobody waits for any more: at its next checkpoint it ends with an error, and unwinds as from any."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

Check = Callable[[], None]
"""Raises where the work is to end."""

_check: ContextVar[Check | None] = ContextVar("check", default=None)


def checkpoint() -> None:
    """Here the work of this thread may end: nothing is half done. Raises what its check raises, if it has one."""
    if check := _check.get():
        check()


@contextmanager
def checked_by(check: Check) -> Generator[None]:
    """What this thread does in the block asks `check` at every checkpoint."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)
