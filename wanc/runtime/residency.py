"""Which engine files are open: as many as a budget of bytes allows, those that are needed next before all others."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from threading import Condition
from typing import Generic, TypeVar

from .checkpoint import checkpoint
from .engine_file import EngineFile, EngineMemory
from .errors import TargetError
from .events import EVICTIONS, RESIDENT, count, gauge
from .memory import available_bytes
from .pool import AnonymousMemory, ArrayPool, PoolMemory
from .uses import Uses

Opened = TypeVar("Opened")
CHECK_SECONDS = 0.1
"""How often who waits for room looks whether its work is still wanted."""


@dataclass
class Traffic:
    """What came and went: files opened, those of them ahead of their use, files closed, and bytes.

    `loaded_bytes` are those of all files that were opened, as often as they were; `peak_bytes` the most that files and
    reservations were counted to take at once.
    """

    loads: int = 0
    prefetched: int = 0
    evictions: int = 0
    loaded_bytes: int = 0
    peak_bytes: int = 0


@dataclass
class _Entry(Generic[Opened]):
    """A file that is open, or that is being opened while it has no session. `users` are executing it."""

    file: EngineFile
    users: int
    bytes: int = 0
    session: Opened | None = None


class Residency(Generic[Opened]):
    """Opens engine files when they are needed, or ahead of that, and closes others to make room.

    Without a budget nothing is closed. With one, open files and what is reserved for values are never counted to take
    more bytes; of the files that nobody executes, the one goes that will be needed last. The next one, while it has no
    room, is read through by `read_file`: then the disk is not waited for when it is opened. Arrays are of `pool`, which
    is part of the same account (see `_values`) and takes them from `memory`.
    """

    def __init__(
        self,
        files: Iterable[EngineFile],
        open_file: Callable[[EngineFile], Opened],
        budget: int | None = None,
        read_file: Callable[[EngineFile], object] = lambda _: None,
        memory: Callable[[int], PoolMemory] = AnonymousMemory,
    ) -> None:
        self._files: Mapping[str, EngineFile] = {file.file: file for file in files}
        self._open_file, self._read_file, self.budget = open_file, read_file, budget
        self._read: EngineFile | None = None  # the last one that was read through
        self._largest = max((self._memory(file).opening for file in self._files.values()), default=0)
        self._entries: dict[str, _Entry[Opened]] = {}
        self._reserved = 0
        self._line: deque[object] = deque()  # who waits for a reservation, in the order in which they came
        self.pool = ArrayPool(self._make_room_for_arrays, memory)
        self._in_need = 0  # threads that wait for room
        self._uses = Uses()
        self._changed = Condition()
        self._ahead: ThreadPoolExecutor | None = None
        self._looking_ahead = False
        self._traffic = Traffic()

    @contextmanager
    def use(self, file: EngineFile) -> Generator[Opened]:
        """What `open_file` made of it, which stays open meanwhile. Waits where others have to finish first.

        A thread uses one file at a time, or two could wait for each other. Raises what `open_file` raises.
        """
        session = self._acquire(file)
        self._look_ahead()
        try:
            yield session
        finally:
            with self._changed:
                entry = self._entries[file.file]
                entry.users -= 1
                self._changed.notify_all()
            self._look_ahead()

    @contextmanager
    def expect(self, files: Sequence[EngineFile]) -> Generator[None]:
        """For the length of a `with`: these will be used, in this order. So the next ones are opened ahead."""
        with self._changed:
            line = self._uses.add([file.file for file in files])
        self._look_ahead()
        try:
            yield
        finally:
            with self._changed:
                self._uses.remove(line)

    @contextmanager
    def reserve(self, size: int, files: Iterable[EngineFile]) -> Generator[None]:
        """Keep room for so many bytes of values while these files are used, for the length of a `with`.

        Beside all reservations the largest file has room, so that whoever has one comes to an end; others wait for
        that, in their order. A thread holds one at a time. Raises TargetError where the budget is too small for this
        one alone.
        """
        self.check_room(size, files)
        with self._changed:
            if size:
                self._wait_for_room(size)
            self._reserved += size
        try:
            with self._changed:
                self.pool.begin()
                self._make_room(0)
                self._note_peak()
            yield
        finally:
            with self._changed:
                self._reserved -= size
                self._tell()
                self._changed.notify_all()

    @property
    def room(self) -> int | None:
        """Bytes that can be reserved in all: of the budget what the largest file leaves; without one what this machine
        has free, and what arrays have of it by now. None where the system does not say.
        """
        if self.budget is not None:
            return self.budget - self._largest
        available = available_bytes()
        return None if available is None else available + self.pool.counts().held

    def _wait_for_room(self, size: int) -> None:
        """Until so many bytes can be reserved, and who came before has got theirs."""
        turn = object()
        self._line.append(turn)
        try:
            while self._line[0] is not turn or (self._reserved and not self._has_room(size)):
                self._wait()
        finally:
            self._line.remove(turn)
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return (room := self.room) is None or self._reserved + size <= room

    def close(self, files: Iterable[EngineFile]) -> None:
        """Close those of these files that nobody is executing."""
        with self._changed:
            for file in files:
                entry = self._entries.get(file.file)
                if entry is not None and entry.session is not None and not entry.users:
                    del self._entries[file.file]
            self._tell()

    def counters(self) -> dict[str, int]:
        """What came and went since the residency was made."""
        with self._changed:
            return asdict(self._traffic)

    def _memory(self, file: EngineFile) -> EngineMemory:
        """Raises TargetError where there is a budget and nobody says what a file takes of it."""
        if file.memory is None and self.budget is not None:
            raise TargetError(
                f"this bundle does not say how much memory {file.file} takes, so that no budget can be kept",
                hint="build it again with this version of wanc, or run it without a budget",
            )
        return file.memory or EngineMemory(0, 0)

    def check_room(self, size: int, files: Iterable[EngineFile]) -> None:
        """Raises TargetError where so many bytes of values have no room beside any one of these files."""
        largest = max((self._memory(file).opening for file in files), default=0)
        if self.budget is not None and (least := size + largest) > self.budget:
            raise TargetError(
                f"this takes {size:,} bytes for values beside an engine file of {largest:,}, "
                f"and the budget is {self.budget:,} bytes: {least - self.budget:,} are missing",
                hint=f"allow at least {least} bytes, or ask for a smaller video",
            )

    def _acquire(self, file: EngineFile) -> Opened:
        with self._changed:
            self._uses.advance(file.file)
            while (known := self._entries.get(file.file)) is not None:
                if (session := self._joined(known)) is not None:
                    return session
            self.check_room(0, [file])
            entry = self._entries[file.file] = _Entry(file, users=1)
            try:
                self._make_room(self._memory(file).opening)
            except BaseException:  # the same, while it waits
                self._forget(entry)
                raise
            self._take(entry)
        return self._open(entry)

    def _joined(self, entry: _Entry[Opened]) -> Opened | None:
        """What a file is open as, with one user more; None where the thread that was opening it has failed."""
        entry.users += 1  # from now on: who waits for a file must not find it closed
        try:
            while entry.session is None and self._entries.get(entry.file.file) is entry:
                self._wait()
        except BaseException:  # a signal, or nobody waits for its work any more
            entry.users -= 1
            raise
        if entry.session is not None:
            self._entries[entry.file.file] = self._entries.pop(entry.file.file)  # behind all that were used before
        return entry.session

    def _open(self, entry: _Entry[Opened]) -> Opened:
        try:
            session = self._open_file(entry.file)
        except BaseException:
            with self._changed:
                self._forget(entry)
            raise
        with self._changed:
            entry.session = session
            # What it took beside that to open it is gone.
            entry.bytes = self._memory(entry.file).opened
            self._tell()
            self._traffic.loads += 1
            self._traffic.loaded_bytes += self._memory(entry.file).opened
            self._changed.notify_all()
        return session

    def _forget(self, entry: _Entry[Opened]) -> None:
        """A file that was not opened after all."""
        del self._entries[entry.file.file]
        self._tell()
        self._changed.notify_all()

    def _take(self, entry: _Entry[Opened]) -> None:
        """Count what opening a file takes, for which there is room."""
        entry.bytes = self._memory(entry.file).opening
        self._note_peak()

    def _note_peak(self, more: int = 0) -> None:
        self._traffic.peak_bytes = max(self._traffic.peak_bytes, self._files_taken + self._values(more))
        self._tell()

    def _tell(self) -> None:
        gauge(RESIDENT, self._files_taken, budget="device", kind="engines")
        gauge(RESIDENT, self._values(), budget="device", kind="values")

    def _wait(self) -> None:
        """Until something may have changed. Nobody tells who waits that its work is cancelled: it looks for itself."""
        self._changed.wait(CHECK_SECONDS)
        checkpoint()

    @property
    def _taken(self) -> int:
        return self._files_taken + self._values()

    @property
    def _files_taken(self) -> int:
        return sum(entry.bytes for entry in self._entries.values())

    def _values(self, more: int = 0) -> int:
        """Bytes of values, if there are so many more in arrays: what is reserved for them, in which arrays are counted
        as well; if arrays are more than that, all of them. What the pool has kept of an earlier phase comes on top.
        """
        arrays = self.pool.counts()
        return max(self._reserved, arrays.held - arrays.spare + more) + arrays.spare

    def _make_room(self, size: int) -> None:
        """Free memory until so many bytes more fit, and wait for files that are executed.

        These come to an end: beside all reservations there is room for any one file. Nobody waits for arrays beyond
        what is reserved, for whoever has them may be the one that waits. Meanwhile nothing is opened ahead, which would
        take the room that has just been made.
        """
        self._in_need += 1
        try:
            while self.budget is not None and (missing := self._taken + size - self.budget) > 0:
                if self._free(missing, sooner_than=-1):
                    continue
                if self._files_taken + self._reserved + size <= self.budget:
                    return
                self._wait()
        finally:
            self._in_need -= 1

    def _make_room_for_arrays(self, size: int) -> None:
        """The same for arrays, without waiting: their room is what was reserved for them."""
        with self._changed:
            while self.budget is not None and (missing := self._files_taken + self._values(size) - self.budget) > 0:
                if not self._free(missing, sooner_than=-1, more=size):
                    break
            self._note_peak(size)

    def _free(self, size: int, *, sooner_than: float, more: int = 0) -> bool:
        """Let the pool give back what nothing is reserved for, or else close a file as `_close_last` does; and whether
        anything was freed.
        """
        beyond = min(size, self._values(more) - self._reserved)
        return (beyond > 0 and self.pool.trim(beyond)) or self._close_last(sooner_than=sooner_than)

    def _close_last(self, *, sooner_than: float) -> bool:
        """Close the file that is needed last, if that is later than so many uses from now; and whether there is one."""
        idle = [entry for entry in self._entries.values() if entry.session is not None and not entry.users]
        # Of several that nobody expects, the first in the list was used the longest ago.
        last = max(idle, key=lambda entry: self._uses.distance(entry.file.file), default=None)
        if last is None or self._uses.distance(last.file.file) <= sooner_than:
            return False
        del self._entries[last.file.file]
        self._traffic.evictions += 1
        count(EVICTIONS, component=last.file.component, graph=last.file.graph)
        self._tell()
        return True

    def _look_ahead(self) -> None:
        """Let another thread open what is needed next, unless it is at that already."""
        with self._changed:
            if self._looking_ahead or self._next_absent() is None:
                return
            self._looking_ahead = True
            self._ahead = self._ahead or ThreadPoolExecutor(1, "residency")
        try:
            self._ahead.submit(self._open_ahead)
        except RuntimeError:  # the interpreter is ending
            self._looking_ahead = False

    def _open_ahead(self) -> None:
        try:
            while self._open_next():
                pass  # nothing is held here: what is closed meanwhile has to be gone
        except Exception:  # who needs the file tries again, and is told
            with self._changed:
                self._looking_ahead = False

    def _open_next(self) -> bool:
        """Open or read what is needed next, and whether there was anything to do."""
        with self._changed:
            file = self._next_absent()
            entry = self._begin(file) if file is not None else None
            if file is None or (entry is None and file is self._read):
                self._looking_ahead = False
                return False
            if entry is None:
                self._read = file
        if entry is None:
            self._read_file(file)
        else:
            self._open(entry)
        return True

    def _begin(self, file: EngineFile) -> _Entry[Opened] | None:
        """Take room for a file ahead of its use, if what is closed for it is needed later; None where there is none."""
        if self._in_need or not self._has_room_ahead(file):
            return None
        entry = self._entries[file.file] = _Entry(file, users=0)
        self._take(entry)
        self._traffic.prefetched += 1
        return entry

    def _next_absent(self) -> EngineFile | None:
        return next((self._files[name] for name in self._uses.upcoming() if name not in self._entries), None)

    def _has_room_ahead(self, file: EngineFile) -> bool:
        """Whether there is room, or can be made. What is expected gives way to the very next file alone, and only if it
        is needed later: else all that goes round would be read again in each round.
        """
        sooner_than = 0 if self._uses.distance(file.file) == 0 else sys.float_info.max
        while self.budget is not None and (missing := self._taken + self._memory(file).opening - self.budget) > 0:
            if not self._free(missing, sooner_than=sooner_than):
                return False
        return True
