"""A worker's thread with the queue that it works through."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from threading import Lock, Thread, current_thread

from ..channel import Channel, ChannelClosed
from ..cores import keep_on
from ..errors import TargetError
from .execution import Execution
from .worker import ROOM


class Desk:
    """Hands each execution to `run`, in its thread, until it is cleared. There `on_begin` and `on_end` are called, too.

    `cores` are the numbers of the processors that the thread is kept on, none for any. Where `stop` is given, it lets
    `run` come to an end from outside, and whoever clears the desk waits for that.
    """

    def __init__(
        self,
        device: str,
        run: Callable[[Execution], object],
        *,
        cores: Collection[int] = (),
        stop: Callable[[], object] | None = None,
        on_begin: Callable[[], object] = lambda: None,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        """Raises TargetError where no thread can be made."""
        self._run, self._cores, self._stop, self._on_begin, self._on_end = run, cores, stop, on_begin, on_end
        self._queue = Channel[Execution](ROOM)
        self._given: set[Execution] = set()
        self._lock = Lock()
        self._thread = Thread(target=self._serve, name=device, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise TargetError("a thread cannot be made", hint="raise the limit on processes: ulimit -u") from error

    def offer(self, execution: Execution, seconds: float) -> bool:
        """As `DeviceWorker.offer`."""
        self._note(execution)
        is_taken = False
        with suppress(ChannelClosed):  # it was abandoned just now: the next offer finds another one
            is_taken = self._queue.offer(execution, seconds)
        if not is_taken:
            self._forget(execution)
        return is_taken

    def clear(self, error: TargetError) -> None:
        """Fail all that was given, and let the thread end behind what it is at."""
        self._queue.close()
        with self._lock:
            given, self._given = self._given, set()
        for execution in given:
            execution.fail(error)
        if self._stop is not None:
            self._stop()
            if current_thread() is not self._thread:  # where it has dropped the last reference to an executor
                self._thread.join()

    def _serve(self) -> None:
        if self._cores:
            keep_on(self._cores)
        try:
            self._on_begin()
            for execution in self._queue:
                self._run(execution)
                self._forget(execution)
                del execution  # while it waits for another one, it holds nothing of this one
        except ChannelClosed:
            return
        finally:
            self._on_end()

    def _note(self, execution: Execution) -> None:
        with self._lock:
            self._given.add(execution)

    def _forget(self, execution: Execution) -> None:
        with self._lock:
            self._given.discard(execution)


class DeskWorker:
    """A device's worker that has a desk from its first execution on, and another one where that was abandoned."""

    def __init__(self, device: str, open_desk: Callable[[], Desk]) -> None:
        self.device = device
        self._open_desk = open_desk
        self._desk: Desk | None = None
        self._is_closed = False
        self._lock = Lock()

    def begin(self) -> None:
        """Get ready for executions. Raises TargetError where the worker is closed, or no thread can be made."""
        self._opened()

    def offer(self, execution: Execution, seconds: float) -> bool:
        """As `DeviceWorker.offer`. Raises what `begin` raises."""
        return self._opened().offer(execution, seconds)

    def abandon(self, error: TargetError) -> None:
        """As `DeviceWorker.abandon`."""
        with self._lock:
            desk, self._desk = self._desk, None
        if desk is not None:
            desk.clear(error)

    def close(self) -> None:
        """As `DeviceWorker.close`."""
        with self._lock:
            self._is_closed, desk, self._desk = True, self._desk, None
        if desk is not None:
            desk.clear(TargetError(f"{self.device} was closed"))

    def _opened(self) -> Desk:
        with self._lock:
            if self._is_closed:
                raise TargetError(f"{self.device} takes no more work: it was closed")
            if self._desk is None:
                self._desk = self._open_desk()
            return self._desk
