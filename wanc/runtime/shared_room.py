"""Room in memory that threads share who work on the same video: it is reserved while anybody is in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from threading import Lock
from types import TracebackType


class SharedRoom(AbstractContextManager[None]):
    """Each of the threads is in it for the length of a `with`. Whoever comes first waits as `reserve` does."""

    def __init__(self, reserve: Callable[[], AbstractContextManager[None]]) -> None:
        self._reserve, self._reserved = reserve, ExitStack()
        self._lock, self._inside = Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._reserved.enter_context(self._reserve())
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            left = ExitStack() if self._inside else self._reserved.pop_all()
        left.close()  # which takes a lock that somebody may hold who wants this one
