"""What a device's parent and child say to each other: what is none of it is told, and takes nothing along."""

from __future__ import annotations

import gc
import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from wanc.runtime.errors import BundleError, TargetError
from wanc.runtime.interface import DTYPES
from wanc.runtime.pool import PAGE, ArrayPool
from wanc.runtime.value import Value
from wanc.runtime.workers.shared_memory import SharedBlock, in_shared_memory, place_of, shared_copy
from wanc.runtime.workers.wire import MOST_BYTES, Wire, WireClosed, entry_of

SOON = 30.0


def descriptors() -> list[str]:
    """What this process has open of sockets and of memory: libraries open files when it suits them."""
    found: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(link for link in found if link.startswith(("socket:", "/memfd:")))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Wire]]:
    """A socket that anything can be put into, and the other side."""
    before = descriptors()
    raw, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wire = Wire(other)
    yield raw, wire
    raw.close()
    wire.close()
    gc.collect()
    assert descriptors() == before, "what came with a message is closed, whatever is wrong with it"


def pool() -> ArrayPool:
    return ArrayPool(memory=SharedBlock.make)


def told(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (1000, 7)])
def test_an_array_is_the_same_memory_on_both_sides(
    dtype: str, shape: tuple[int, ...], ends: tuple[socket.socket, Wire]
) -> None:
    raw, wire = ends
    array = shared_copy(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype), pool().empty)
    sender = Wire(raw)
    for _ in range(2):  # its block is sent once
        entry, block = entry_of("x", array)
        sender.send({"kind": "done", "values": [entry]}, [block])
        (found,) = wire.receive(SOON).objects("values")
        name, received = wire.array(found)
        assert name == "x" and received.dtype == array.dtype and np.array_equal(received, array)
        array[...] = 1
        assert np.array_equal(received, array)


def test_who_has_an_array_keeps_its_memory_and_its_end_is_told(ends: tuple[socket.socket, Wire]) -> None:
    raw, wire = ends
    sender, ended = Wire(raw), list[int]()
    array = shared_copy(np.arange(6.0).reshape(2, 3), pool().empty)
    entry, block = entry_of("x", array)
    number = block.number
    sender.send({"kind": "done", "values": [entry]}, [block])
    _, received = wire.array(wire.receive(SOON).objects("values")[0], ended.append)
    view = received[1:, 1:]
    del array, block, received
    sender.send({"kind": "done"})  # the block is gone
    wire.receive(SOON)
    gc.collect()
    assert view.tolist() == [[4, 5]] and ended == []
    del view
    assert ended == [number]


def test_what_was_sent_and_is_gone_cannot_be_named_any_more(ends: tuple[socket.socket, Wire]) -> None:
    raw, wire = ends
    sender, array = Wire(raw), shared_copy(np.zeros(3), pool().empty)
    entry, block = entry_of("x", array)
    sender.send({"kind": "done"}, [block])
    wire.receive(SOON)
    del array, block
    sender.send({"kind": "done", "values": [entry]})
    with pytest.raises(BundleError, match="which was not sent"):
        wire.array(wire.receive(SOON).objects("values")[0])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (bytes(range(128, 228)), "not UTF-8"),
        (b'{"kind":"done","outp', "not JSON"),
        (b'{"kind":"done","kind":"done"}', "duplicate key"),
        (b'{"kind":' + b"[" * 40 + b"]" * 40 + b"}", "nested deeper"),
        (b'{"kind":' + b" " * MOST_BYTES + b'"done"}', "more than the 131072 allowed"),
        (b"{}", "kind is missing"),
        (b'{"kind":"done","seconds":NaN}', "NaN is not JSON"),
        (b'{"kind":"blocks","gone":[],"new":[[7,4096]]}', "as many as there are descriptors"),
        (b'{"kind":"blocks","gone":[],"new":7}', "as many as there are descriptors"),
        (b'{"kind":"blocks","gone":["x"],"new":[]}', "must be 1 integers"),
    ],
)
def test_what_is_no_message(message: bytes, reason: str, ends: tuple[socket.socket, Wire]) -> None:
    raw, wire = ends
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    raw.send(message)
    with pytest.raises(BundleError, match=reason):
        wire.receive(SOON)


def test_what_is_no_shared_memory(ends: tuple[socket.socket, Wire]) -> None:
    """A descriptor of something else, of memory that may shrink, and of less than is said."""
    raw, wire = ends
    loose, block = os.memfd_create("loose", os.MFD_CLOEXEC), SharedBlock.make(PAGE)
    os.ftruncate(loose, PAGE)
    for descriptor, size in ((raw.fileno(), PAGE), (loose, PAGE), (block.descriptor, 2 * PAGE), (block.descriptor, -1)):
        socket.send_fds(raw, [told({"kind": "blocks", "gone": [], "new": [[7, size]]})], [descriptor])
        with pytest.raises(BundleError, match="holds 7, which is no shared memory of"):
            wire.receive(SOON)
    os.close(loose)


def test_more_descriptors_than_may_be(ends: tuple[socket.socket, Wire]) -> None:
    raw, wire = ends
    socket.send_fds(raw, [told({"kind": "done"})], [0] * 100)
    with pytest.raises(BundleError, match="more descriptors than may be"):
        wire.receive(SOON)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "object"}, "dtype is 'object', not one of bool, "),
        ({"shape": [2**40, 2**40]}, "of which a block of 4,096 bytes holds none"),
        ({"shape": [4096, 4096, 0, -1]}, "of which a block of 4,096 bytes holds none"),
        ({"shape": [1] * 33}, "must be 32 integers"),
        ({"shape": [64, 64]}, "16,384 bytes at 0 do not lie in a block of 4,096"),
        ({"shape": "x"}, "must be a list"),
        ({"offset": 4096}, "24 bytes at 4,096 do not lie in a block of 4,096"),
        ({"offset": 2}, "24 bytes at 2 do not lie"),
        ({"offset": -4}, "offset must be at least 0"),
        ({"block": 2**40}, "which was not sent"),
    ],
)
def test_an_entry_that_fits_no_block(change: dict[str, Any], reason: str, ends: tuple[socket.socket, Wire]) -> None:
    raw, wire = ends
    entry, block = entry_of("x", shared_copy(np.zeros((2, 3), np.float32), pool().empty))
    Wire(raw).send({"kind": "done", "values": [{**entry, **change}]}, [block])
    with pytest.raises(BundleError, match=reason):
        wire.array(wire.receive(SOON).objects("values")[0])


def test_nobody_at_the_other_end(ends: tuple[socket.socket, Wire]) -> None:
    raw, wire = ends
    raw.close()
    with pytest.raises(WireClosed):
        wire.receive(SOON)
    with pytest.raises(WireClosed):
        wire.send({"kind": "done"})


def test_what_is_too_long_is_not_sent(ends: tuple[socket.socket, Wire]) -> None:
    with pytest.raises(TargetError, match="more than 131,072"):
        ends[1].send({"kind": "x" * MOST_BYTES})


def test_nothing_comes_in_time(ends: tuple[socket.socket, Wire]) -> None:
    with pytest.raises(TimeoutError):
        ends[1].receive(0.01)


def test_a_value_is_copied_into_shared_memory_once() -> None:
    empty, value = pool().empty, Value(np.arange(6.0).reshape(2, 3))
    first = in_shared_memory(value, empty)
    assert in_shared_memory(value, empty) is first and first.tolist() == value.numpy().tolist()
    assert in_shared_memory(Value(first), empty) is first, "it lies there already"
    gaps = Value(first[:, 1:])
    assert place_of(gaps.numpy()) is None
    assert in_shared_memory(gaps, empty).tolist() == [[1, 2], [4, 5]]
