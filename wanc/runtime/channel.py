"""What one thread hands to another piece by piece, a few at a time: who is ahead waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class ChannelClosed(Exception):
    """Nobody will give or take any more: whoever is left has nothing to wait for."""


class Channel(Generic[T]):
    """At most `room` pieces that were given and not taken yet."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._pieces: deque[T] = deque()
        self._changed = Condition()
        self._is_complete = self._is_closed = False

    def put(self, piece: T) -> None:
        """Give a piece, once there is room. Raises ChannelClosed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._pieces) < self._room)
            if self._is_closed:
                raise ChannelClosed
            self._pieces.append(piece)
            self._changed.notify_all()

    def offer(self, piece: T, seconds: float) -> bool:
        """Give a piece, if there is room within so many seconds; and whether there was. Raises ChannelClosed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._pieces) < self._room, seconds)
            if self._is_closed:
                raise ChannelClosed
            if is_taken := len(self._pieces) < self._room:
                self._pieces.append(piece)
                self._changed.notify_all()
            return is_taken

    def complete(self) -> None:
        """That was the last piece."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of all pieces: neither side has to go on."""
        with self._changed:
            self._is_closed = True
            self._pieces.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """The pieces in turn, up to the last one. Raises ChannelClosed where that does not come."""
        while self._wait():
            yield self._take()  # and nothing here holds what was taken

    def _wait(self) -> bool:
        """Until there is a piece, or there will be none; and whether there is."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._is_complete or self._pieces)
            if self._is_closed:
                raise ChannelClosed
            return bool(self._pieces)

    def _take(self) -> T:
        with self._changed:
            if self._is_closed:
                raise ChannelClosed
            self._changed.notify_all()
            return self._pieces.popleft()
