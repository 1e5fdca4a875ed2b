"""What a device's parent and child say to each other: JSON messages, and descriptors of the memory that they share.

A message is one packet of a socket, of bounded length; JSON is read as strictly as a manifest is. Arrays are never in
it: an entry names the block in which one lies. A block's descriptor is sent once, ahead of the first message that names
it; when nobody holds it any longer on the side that sent it, the other side is told with the next message.
"""

from __future__ import annotations

import json
import os
import socket
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import BundleError, TargetError
from ..interface import DTYPES
from ..strict_json import Fields, JsonObject, JsonValue, parse_object
from ..value import Array
from .shared_memory import BlockPlace, SharedBlock, lent_array, place_of

MOST_BYTES = 2**17
"""Of one message. An entry takes a hundred: segments hand on far fewer values than that allows."""
MOST_DESCRIPTORS = 64
"""In one message; the kernel allows 253."""
MOST_BLOCKS = 2**14
MOST_DIMENSIONS = 32
"""That an array has; numpy's limit in its older versions."""
NUMPY: Mapping[str, np.dtype[Any]] = {name: np.dtype(name) for name in DTYPES}
"""Of arrays that are handed on."""
BLOCKS, HELLO, EXECUTE, DONE, FAILED = "blocks", "hello", "execute", "done", "failed"
"""Kinds of messages."""
WHERE = "a message"
"""What errors call the text; who receives it says whose."""


class WireClosed(Exception):
    """There is nobody at the other end."""


class Wire:
    """One end of a connection. Whoever has it sends and receives in turn: it is for one thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sent: dict[int, weakref.ref[SharedBlock]] = {}
        self._received: dict[int, SharedBlock] = {}

    def send(self, message: JsonObject, blocks: Iterable[SharedBlock] = ()) -> None:
        """Send a message that names these blocks. Raises WireClosed, and TargetError where it is too long."""
        new = list({block.number: block for block in blocks if block.number not in self._sent}.values())
        gone = [number for number, block in self._sent.items() if block() is None]
        for start in range(0, max(len(new), bool(gone)), MOST_DESCRIPTORS):
            some = new[start : start + MOST_DESCRIPTORS]
            told: list[JsonValue] = [[block.number, block.size] for block in some]
            self._put({"kind": BLOCKS, "new": told, "gone": list(gone)}, [block.descriptor for block in some])
            self._sent |= {block.number: weakref.ref(block) for block in some}
            for number in gone:
                del self._sent[number]
            gone = []
        self._put(message, [])

    def receive(self, seconds: float | None = None) -> Fields:
        """The next message, which is waited for so long, None for ever.

        Raises WireClosed at the end, TimeoutError, and BundleError for what is no message.
        """
        self._connection.settimeout(seconds)
        while (message := self._take()).text("kind") == BLOCKS:
            pass
        return message

    def array(self, entry: Fields, on_end: Callable[[int], object] = lambda _: None) -> tuple[str, Array]:
        """A value's name and the value, where it lies. `on_end` gets the block's number when nobody has it any more.

        Raises BundleError for an entry that fits no block which was sent.
        """
        name, dtype = entry.text("name"), NUMPY.get(entry.text("dtype"))
        if dtype is None:
            entry.refuse("dtype", f"is {entry.text('dtype')[:40]!a}, not one of {', '.join(DTYPES)}")
        sizes = entry.values.get("shape")
        rank = len(sizes) if isinstance(sizes, list) else 0
        shape = tuple(entry.whole_numbers("shape", min(rank, MOST_DIMENSIONS)))
        number, offset = entry.integer("block"), entry.integer("offset")
        block = self._received.get(number)
        if block is None:
            entry.refuse("block", f"is {number}, which was not sent")
        if any(not 0 <= size <= block.size for size in shape):
            entry.refuse("shape", f"is {list(shape)}, of which a block of {block.size:,} bytes holds none")
        try:
            return name, lent_array(BlockPlace(block, offset), shape, dtype, lambda _: on_end(number))
        except ValueError as error:
            entry.refuse("shape", f"is {list(shape)}: {error}")

    def close(self) -> None:
        self._connection.close()
        self._received.clear()

    def _put(self, message: JsonObject, descriptors: list[int]) -> None:
        data = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
        if len(data) > MOST_BYTES:
            raise TargetError(f"a message to another process has {len(data):,} bytes, more than {MOST_BYTES:,}")
        try:
            socket.send_fds(self._connection, [data], descriptors)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise WireClosed from error
        except OSError as error:
            raise TargetError("a message to another process cannot be sent") from error

    def _take(self) -> Fields:
        flags = socket.MSG_CMSG_CLOEXEC
        try:
            data, found, flags, _ = socket.recv_fds(self._connection, MOST_BYTES + 1, MOST_DESCRIPTORS, flags)
        except ConnectionResetError as error:
            raise WireClosed from error
        descriptors = list(found)
        try:
            if not data:
                raise WireClosed
            if flags & socket.MSG_CTRUNC:
                raise BundleError("more descriptors than may be, or than are left: ulimit -n", where=WHERE)
            fields = parse_object(data, where=WHERE, max_bytes=MOST_BYTES)
            if fields.text("kind") == BLOCKS:
                self._note_blocks(fields, descriptors)
            return fields
        finally:
            for descriptor in descriptors:  # those that no block has taken over
                os.close(descriptor)

    def _note_blocks(self, fields: Fields, descriptors: list[int]) -> None:
        gone = fields.values.get("gone")
        for number in fields.whole_numbers("gone", len(gone) if isinstance(gone, list) else 0):
            self._received.pop(number, None)
        told = fields.values.get("new")
        if not isinstance(told, list) or len(told) != len(descriptors):
            fields.refuse("new", "must be as many as there are descriptors")
        for entry in told:
            number, size = Fields({"block": entry}, WHERE).whole_numbers("block", 2)
            if number in self._received or len(self._received) >= MOST_BLOCKS or number < 0:
                fields.refuse("new", f"holds {number}, which was sent already or is one too many")
            try:
                self._received[number] = SharedBlock.received(descriptors.pop(0), size)
            except ValueError as error:
                fields.refuse("new", f"holds {number}, which {error}")


def entry_of(name: str, array: Array) -> tuple[JsonObject, SharedBlock]:
    """How a message names a value that lies in shared memory, and the block. Raises TargetError for another dtype."""
    if array.dtype.name not in DTYPES:
        raise TargetError(f"{name} is {array.dtype.name}, which is not handed on between processes")
    place = place_of(array)
    assert place is not None, "it was put there"
    entry: JsonObject = {
        "name": name,
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "block": place.block.number,
        "offset": place.offset,
    }
    return entry, place.block
