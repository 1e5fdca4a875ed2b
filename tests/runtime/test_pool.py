"""The pool of arrays: no two have one buffer, what nobody holds comes back, and what is held is counted."""

from __future__ import annotations

import gc
import mmap
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanc.runtime import pool as module
from wanc.runtime.events import POOL, POOL_TAKEN, recording
from wanc.runtime.pool import MOST_HELD, PAGE, WASTE, ArrayPool, copied

SHAPE = (3, PAGE)


class System:
    """How many bytes the system has given and not got back, counted beside the pool."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self.given = 0
        system = self

        class Counted(mmap.mmap):
            def __init__(self, *_: Any) -> None:
                system._mapped.add(self)
                system.given += len(self)

        monkeypatch.setattr(module.mmap, "mmap", Counted)

    @property
    def held(self) -> int:
        return sum(map(len, self._mapped))


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    return System(monkeypatch)


TAKE, VIEW, DROP, TRIM, BEGIN = range(5)
ACTIONS = st.lists(
    st.tuples(st.sampled_from((TAKE, TAKE, VIEW, DROP, DROP, TRIM, BEGIN)), st.integers(0, 40 * PAGE)), max_size=60
)


@given(ACTIONS)
def test_no_buffer_has_two_owners_and_the_account_is_what_there_is(actions: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        system, pool = System(monkeypatch), ArrayPool()
        held: list[tuple[int, np.ndarray]] = []  # bytes of a buffer, and who has it
        for number, (action, size) in enumerate(actions):
            if action == TAKE:
                held.append((size if size >= PAGE else 0, pool.empty((size,), np.uint8)))
                held[-1][1][:] = number % 251
            elif held and action == VIEW:  # in place of the array itself
                bytes_, array = held.pop(size % len(held))
                held.append((bytes_, array[1:][::-1]))
                del array
            elif held and action == DROP:
                del held[size % len(held)]
            elif action == TRIM:
                pool.trim(size)
            elif action == BEGIN:
                pool.begin()
                assert pool.counts().spare == pool.counts().kept
            counts = pool.counts()
            assert (counts.held, counts.taken) == (system.held, system.given)
            assert counts.held <= MOST_HELD * counts.most_out and counts.spare <= counts.kept
            wanted = sum(bytes_ for bytes_, _ in held)
            assert wanted <= counts.out <= wanted + wanted // WASTE + 3 * PAGE * len(held)
        for number, (_, one) in enumerate(held):
            assert len(set(one.tolist())) <= 1, "somebody else has written to it"
            assert not any(np.shares_memory(one, other) for _, other in held[:number])
        held, one = [], None
        assert pool.counts().out == 0
        pool.trim()
        assert system.held == pool.counts().held == 0


def test_what_comes_back_is_given_out_again_and_nothing_more_is_taken(system: System) -> None:
    pool = ArrayPool()
    first = pool.empty(SHAPE)
    address = first.ctypes.data
    assert address % PAGE == 0 and first.flags.c_contiguous and first.flags.writeable and first.dtype == np.float32
    rows = first[1:].T.view(np.uint32)
    del first
    assert pool.empty(SHAPE).ctypes.data != address, "a view of it is held"
    del rows
    taken = system.given
    again = pool.empty((PAGE, 3), np.int32)
    assert again.ctypes.data == address and pool.counts().taken == system.given == taken
    other = pool.empty((4, PAGE), np.float32)
    assert pool.counts().taken == system.given == taken + other.nbytes, "one of another size is a new one"


def test_small_arrays_and_empty_ones_are_numpy_s(system: System) -> None:
    pool = ArrayPool()
    held = [pool.empty(shape, np.float32) for shape in ((), (0, 10**6), (PAGE // 4 - 1,))]
    assert [array.shape for array in held] == [(), (0, 10**6), (PAGE // 4 - 1,)]
    assert system.given == pool.counts().held == 0


def test_a_failure_leaves_nothing_out(system: System) -> None:
    pool = ArrayPool()

    def fail() -> None:
        held = [pool.empty(SHAPE) for _ in range(3)]
        raise ValueError(len(held))

    for _ in range(2):
        with pytest.raises(ValueError, match="3"):
            fail()
        gc.collect()
        assert (pool.counts().out, pool.counts().kept) == (0, system.given)


def test_what_is_lost_between_the_pool_and_an_array_is_counted_no_more(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a signal comes in that moment."""
    pool = ArrayPool()

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_Lease", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.empty(SHAPE)
    sys.exc_info()
    gc.collect()
    assert pool.counts().held == system.held == 0


def test_memory_that_there_is_not_is_an_error_of_its_own() -> None:
    pool = ArrayPool()
    for shape in ((2**50,), (2**62, 2**3)):
        with pytest.raises(MemoryError, match="an array of"):
            pool.empty(shape)
    assert pool.counts().held == 0


def test_an_array_may_go_while_the_pool_is_at_work() -> None:
    """The interpreter frees cycles wherever it likes: also within the pool, which must not wait for itself."""
    pool = ArrayPool()
    array = pool.empty(SHAPE)
    with pool._lock:  # pyright: ignore[reportPrivateUsage]
        del array
    assert pool.counts().out == 0


def test_threads_share_a_pool() -> None:
    pool, start = ArrayPool(), threading.Barrier(4, timeout=30)

    def work(number: int) -> None:
        start.wait()
        for size in range(200):
            array = pool.empty((1 + size % 7, PAGE), np.uint8)
            array[:] = number
            view = array[:, ::2]
            del array
            assert (view == number).all()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert pool.counts().out == 0


def test_a_buffer_that_came_back_too_soon_would_show() -> None:
    """The fault that all of this is about, planted."""
    pool = ArrayPool()
    array = pool.empty(SHAPE)
    lease: Any = array.base
    lease._give_back(lease._buffer)
    assert np.shares_memory(array, pool.empty(SHAPE))


def test_room_is_made_before_memory_is_taken_and_is_told() -> None:
    asked: list[int] = []
    with recording() as recorder:
        pool = ArrayPool(asked.append)
        arrays = [pool.empty(SHAPE), pool.empty(SHAPE)]
        arrays.clear()
        arrays.append(pool.empty(SHAPE))
        pool.trim()
    size = 4 * 3 * PAGE
    assert asked == [size, size]
    assert recorder.values[POOL_TAKEN, ()] == 2 * size
    assert recorder.values[POOL, ()] == size


def test_a_copy_has_no_gaps() -> None:
    pool = ArrayPool()
    array = np.arange(6 * PAGE, dtype=np.int16).reshape(3, -1)
    copy = copied(array.T[::2], pool.empty)
    assert copy.flags.c_contiguous and not np.shares_memory(copy, array)
    np.testing.assert_array_equal(copy, array.T[::2])
