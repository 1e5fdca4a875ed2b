"""Memory for arrays, which is kept for the next ones: what one step needs, the step before it has given back.

An array of a pool is an ordinary array. Its buffer comes back when nobody holds it any more, nor a view of it: Python
counts that, whether a request ends well, fails or is cancelled. So nothing that somebody still holds is written over.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .events import POOL, POOL_TAKEN, count, gauge

PAGE = mmap.PAGESIZE
"""What is smaller is numpy's own: the C library has it at hand."""
WASTE = 8
"""A buffer serves an array that leaves no more than one part in so many of it unused."""
MOST_HELD = 2
"""So many times the most that was out at once. What is more was of sizes that nobody asks for any longer."""

Array = NDArray[Any]


class PoolMemory(Protocol):
    """Bytes at an address, as long as anybody holds this."""

    @property
    def address(self) -> int: ...


class AnonymousMemory:
    """So many bytes of the system's, which this process alone has. Raises MemoryError."""

    __slots__ = ("_bytes", "address")

    def __init__(self, size: int) -> None:
        try:
            self._bytes = np.frombuffer(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
        except (OSError, OverflowError) as error:
            raise MemoryError(f"an array of {size:,} bytes") from error
        self.address = self._bytes.ctypes.data


class Empty(Protocol):
    """What makes arrays with anything in them: `numpy.empty`, or a pool's."""

    def __call__(self, shape: tuple[int, ...], dtype: DTypeLike, /) -> Array: ...


def copied(array: Array, empty: Empty) -> Array:
    """A copy of an array, of any strides, without gaps."""
    copy = empty(array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


@dataclass(frozen=True)
class PoolCounts:
    """Bytes that arrays have (`out`), and that wait for the next ones (`kept`), of these since before the present phase
    (`spare`); the most that were out at once, and all that was ever taken from the system: a warm request adds nothing.
    """

    out: int
    kept: int
    spare: int
    most_out: int
    taken: int

    @property
    def held(self) -> int:
        return self.out + self.kept


class ArrayPool:
    """Buffers of whole pages, each of one array at a time. Several threads may call its methods at once.

    `make_room` is told before so many more bytes are taken from the system, by `memory`.
    """

    def __init__(
        self, make_room: Callable[[int], None] = lambda _: None, memory: Callable[[int], PoolMemory] = AnonymousMemory
    ) -> None:
        self._make_room, self._memory = make_room, memory
        # A buffer comes back, or goes for good, wherever the last reference to it is dropped: that may be in a thread
        # that holds the lock. To append takes none.
        self._returned: deque[_Buffer] = deque()
        self._changes: deque[int] = deque()
        # In the order in which they came back: those that have waited longest are first.
        self._kept: list[_Buffer] = []
        self._held = self._most_out = self._taken = self._phase = 0
        self._lock = Lock()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32, /) -> Array:
        """An array with anything in it, as `numpy.empty` gives one. Raises MemoryError."""
        kind = np.dtype(dtype)
        size = prod(shape) * kind.itemsize
        if size < PAGE:
            return np.empty(shape, kind)
        buffer = self._reused(size) or self._new(-(-size // PAGE) * PAGE)
        return np.asarray(_Lease(buffer, shape, kind, self._returned.append))

    def begin(self) -> None:
        """A phase begins, which may need nothing of what is kept."""
        with self._lock:
            self._collect()
            self._phase += 1

    def trim(self, size: int | None = None) -> bool:
        """Give so many bytes of what is kept back to the system, or all; and whether there were any."""
        with self._lock:
            self._collect()
            kept = self._kept_bytes
            self._keep(0 if size is None else kept - size)
            return bool(kept)

    def counts(self) -> PoolCounts:
        with self._lock:
            self._collect()
            spare = sum(buffer.size for buffer in self._kept if buffer.phase < self._phase)
            return PoolCounts(self._out, self._kept_bytes, spare, self._most_out, self._taken)

    def _reused(self, size: int) -> _Buffer | None:
        with self._lock:
            self._collect()
            fitting = [buffer for buffer in self._kept if size <= buffer.size <= size + max(size // WASTE, PAGE)]
            # Of equals the one that came back last, which the processor may still have in its caches.
            buffer = min(reversed(fitting), key=lambda buffer: buffer.size, default=None)
            if buffer is not None:
                self._kept.remove(buffer)
                self._most_out = max(self._most_out, self._out)
            return buffer

    def _new(self, size: int) -> _Buffer:
        self._make_room(size)
        buffer = _Buffer(size, self._memory(size), self._changes.append)
        count(POOL_TAKEN, size)
        with self._lock:
            self._collect()
            self._taken += size
            self._most_out = max(self._most_out, self._out)
            self._keep(MOST_HELD * self._most_out - self._out)
        return buffer

    @property
    def _kept_bytes(self) -> int:
        return sum(buffer.size for buffer in self._kept)

    @property
    def _out(self) -> int:
        return self._held - self._kept_bytes

    def _keep(self, most: int) -> None:
        """No more bytes than that; the rest goes back to the system."""
        while self._kept and self._kept_bytes > most:
            del self._kept[0]
        self._collect()
        gauge(POOL, self._held)

    def _collect(self) -> None:
        """Count what came and went, and keep what has come back."""
        while self._changes:
            self._held += self._changes.popleft()
        while self._returned:
            buffer = self._returned.popleft()
            buffer.phase = self._phase
            self._kept.append(buffer)


class _Buffer:
    """Memory of the system's as long as anybody holds this; `changed` is told how many bytes came or went."""

    __slots__ = ("_changed", "memory", "phase", "size")

    def __init__(self, size: int, memory: PoolMemory, changed: Callable[[int], None]) -> None:
        self.memory, self.size, self.phase = memory, size, 0
        self._changed = changed
        changed(size)

    def __del__(self) -> None:
        self._changed(-self.size)


class _Lease:
    """Whoever has a buffer: an array keeps what it was made of, and every view of it does."""

    __slots__ = ("__array_interface__", "_buffer", "_give_back")

    def __init__(
        self, buffer: _Buffer, shape: tuple[int, ...], dtype: np.dtype[Any], give_back: Callable[[_Buffer], None]
    ) -> None:
        self._buffer, self._give_back = buffer, give_back
        self.__array_interface__ = {
            "version": 3,
            "typestr": dtype.str,
            "shape": shape,
            "data": (buffer.memory.address, False),
        }

    @property
    def memory(self) -> PoolMemory:
        """Where the array lies: `shared_memory.place_of` asks for it."""
        return self._buffer.memory

    def __del__(self) -> None:
        self._give_back(self._buffer)
