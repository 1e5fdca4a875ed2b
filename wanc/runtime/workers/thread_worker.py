"""A device of this process: a thread that is kept on the device's processors."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from threading import Lock, Thread

from ..channel import Channel, ChannelClosed
from ..cores import keep_on
from ..errors import TargetError
from .execution import Execute, Execution
from .worker import ROOM


class ThreadWorker:
    """`execute` is called in the worker's thread; `cores` are the numbers of its processors, none for any."""

    def __init__(self, device: str, cores: Collection[int], execute: Execute) -> None:
        self.device = device
        self._cores, self._execute = cores, execute
        self._desk: _Desk | None = None
        self._is_closed = False
        self._lock = Lock()

    def offer(self, execution: Execution, seconds: float) -> bool:
        """As `DeviceWorker.offer`. Raises TargetError where the worker is closed, or no thread can be made."""
        with self._lock:
            if self._is_closed:
                raise TargetError(f"{self.device} takes no more work: it was closed")
            if self._desk is None:
                self._desk = _Desk(self.device, self._cores, self._execute)
        return self._desk.offer(execution, seconds)

    def abandon(self, error: TargetError) -> None:
        """Nothing ends a thread that hangs in a library: it is left behind, and has nothing that anybody waits for."""
        with self._lock:
            desk, self._desk = self._desk, None
        if desk is not None:
            desk.clear(error)

    def close(self) -> None:
        with self._lock:
            self._is_closed, desk, self._desk = True, self._desk, None
        if desk is not None:
            desk.clear(TargetError(f"{self.device} was closed"))


class _Desk:
    """A thread with the queue that it works through, until that is cleared."""

    def __init__(self, device: str, cores: Collection[int], execute: Execute) -> None:
        self._cores, self._execute = cores, execute
        self._queue = Channel[Execution](ROOM)
        self._given: set[Execution] = set()
        self._lock = Lock()
        try:
            Thread(target=self._serve, name=device, daemon=True).start()
        except RuntimeError as error:
            raise TargetError("a thread cannot be made", hint="raise the limit on processes: ulimit -u") from error

    def offer(self, execution: Execution, seconds: float) -> bool:
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

    def _serve(self) -> None:
        if self._cores:
            keep_on(self._cores)
        try:
            for execution in self._queue:
                execution.run(self._execute)
                self._forget(execution)
                del execution  # while it waits for another one, it holds nothing of this one
        except ChannelClosed:
            return

    def _note(self, execution: Execution) -> None:
        with self._lock:
            self._given.add(execution)

    def _forget(self, execution: Execution) -> None:
        with self._lock:
            self._given.discard(execution)
