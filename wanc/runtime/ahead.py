"""Making the next pieces of something in another thread, while the last ones are used."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from threading import Event, Thread
from typing import TypeVar

from .channel import Channel, ChannelClosed
from .checkpoint import checked_by
from .errors import TargetError

T = TypeVar("T")


@contextmanager
def made_ahead(pieces: Iterable[T], room: int) -> Generator[Iterator[T]]:
    """`with made_ahead(pieces, 2) as ahead: for piece in ahead: …`: at most `room` pieces are made and not used yet.

    What the making raises is raised where its pieces are used. When the block ends, whatever is still being made ends
    at its next checkpoint, and is waited for. Raises TargetError where no thread can be made.
    """
    channel, ended, faults = Channel[T](room), Event(), list[BaseException]()

    def check() -> None:
        if ended.is_set():
            raise ChannelClosed

    def make() -> None:
        try:
            with checked_by(check), suppress(ChannelClosed):
                for piece in pieces:
                    channel.put(piece)
        except BaseException as error:  # it is for who uses the pieces
            faults.append(error)
        channel.complete()

    def used() -> Iterator[T]:
        yield from channel
        if faults:
            raise faults[0]

    # It works for whom its maker works for.
    thread = Thread(target=copy_context().run, args=(make,), name="ahead", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise TargetError("a thread cannot be made", hint="raise the limit on processes: ulimit -u") from error
    try:
        yield used()
    finally:
        ended.set()
        channel.close()
        thread.join()
