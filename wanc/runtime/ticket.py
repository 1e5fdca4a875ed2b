"""What somebody who has asked for something holds of it: its result when it is there, and the right to call it off."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Condition
from typing import Generic, TypeVar

from .errors import DeadlineExceeded, RequestCancelled, UserError

LOG = logging.getLogger(__name__)
T = TypeVar("T")


OPEN, DONE, FAILED, CANCELLED, LATE = "open", "done", "failed", "cancelled", "late"


class Ticket(Generic[T]):
    """One request: how it ends is decided once, by whatever comes first.

    `deadline` is how many seconds it has from now on, None for any number; `clock` tells seconds.
    """

    def __init__(self, deadline: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        if deadline is not None and not deadline > 0:
            raise UserError(f"a deadline of {deadline:g} seconds", hint="give a number of seconds above 0, or none")
        self._given, self._clock = deadline, clock
        self._until = None if deadline is None else clock() + deadline
        self._changed = Condition()
        self._error: Callable[[], BaseException] | None = None
        self._result: tuple[T, ...] = ()
        self._is_committed = False
        self._outcome = OPEN
        self._callbacks: list[Callable[[Ticket[T]], None]] = []

    # For those who have asked

    def result(self, timeout: float | None = None) -> T:
        """What was asked for, as soon as it is there.

        Raises RequestCancelled, DeadlineExceeded as soon as the time is over, whatever went wrong instead, and
        TimeoutError where nothing of all that has come after `timeout` seconds.
        """
        end = None if timeout is None else self._clock() + timeout
        while not self.done():
            with self._changed:
                if self._outcome != OPEN:
                    break
                until = None if self._is_committed else self._until
                left = min((moment - self._clock() for moment in (end, until) if moment is not None), default=None)
                if end is not None and end <= self._clock():
                    raise TimeoutError
                self._changed.wait(left)
        if self._error is not None:
            raise self._error()
        return self._result[0]

    def cancel(self) -> bool:
        """Call it off. True if it will not be done: then nothing of it was written, nor will be.

        False if it was done or has failed before, or is in the very act of putting its file in place.
        """
        return self._decide(CANCELLED, lambda: RequestCancelled("the request was cancelled"))

    def done(self) -> bool:
        """Whether it is decided how it ends, well or not."""
        self._notice()
        with self._changed:
            return self._outcome != OPEN

    @property
    def outcome(self) -> str:
        """How it ended, in a word: done, cancelled, late or failed; open as long as that is not decided."""
        with self._changed:
            return self._outcome

    def add_done_callback(self, callback: Callable[[Ticket[T]], None]) -> None:
        """Have `callback` called with this ticket when it is decided, by the thread that does so; at once if it is.

        What it raises there is logged. Where nobody waits for a result, a deadline is noticed when somebody next looks.
        """
        with self._changed:
            if self._outcome == OPEN:
                self._callbacks.append(callback)
                return
        callback(self)

    # For those who work

    def check(self) -> None:
        """Raises unless somebody still wants the result: see `checkpoint`."""
        self._notice()
        with self._changed:
            error = self._error
        if error is not None:
            raise error()

    def commit(self) -> None:
        """From here on it can neither be cancelled nor late: what it is about is put in place. Raises as `check`."""
        self._notice()
        with self._changed:
            self._is_committed = self._error is None
        self.check()

    def finish(self, result: T) -> None:
        """It is done, if that is in time."""
        self._notice()
        self._decide(DONE, result=(result,))

    def fail(self, error: BaseException) -> None:
        """It has failed."""
        self._decide(FAILED, lambda: error)

    def _notice(self) -> None:
        """That the time is over, if it is."""
        if self._until is not None and self._clock() >= self._until:
            self._decide(LATE, lambda: DeadlineExceeded(f"the request was not done within {self._given:g} s"))

    def _decide(
        self, outcome: str, error: Callable[[], BaseException] | None = None, result: tuple[T, ...] = ()
    ) -> bool:
        """Whether this is how it ends. An error that is made anew for whoever asks holds nothing that was worked on."""
        with self._changed:
            if self._outcome != OPEN or (self._is_committed and outcome in (CANCELLED, LATE)):
                return False
            self._outcome, self._error, self._result = outcome, error, result
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # whoever decides it has something else to do than to fail for that
                LOG.exception("a callback of a request has failed")
        return True
