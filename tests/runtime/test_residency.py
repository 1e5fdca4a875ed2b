"""Which engine files are open: within the budget whatever is used, ahead of its use, and right whoever asks."""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.runtime import residency as residency_module
from wanc.runtime.engine_file import EngineFile, EngineMemory
from wanc.runtime.errors import TargetError
from wanc.runtime.events import RESIDENT, recording
from wanc.runtime.pool import PAGE
from wanc.runtime.residency import Residency
from wanc.runtime.shared_room import SharedRoom

SECONDS = 30
"""After which a test that waits has failed."""
Sizes = Sequence[tuple[int, int]]


def files_of(sizes: Sizes) -> list[EngineFile]:
    """Files that take so many bytes open, and so many more to be opened."""
    return [
        EngineFile("denoiser", "step", index, "any", "cpu", None, "cpu", str(index), (), (), memory=EngineMemory(*size))
        for index, size in enumerate((stay, stay + more) for stay, more in sizes)
    ]


def name(file: EngineFile) -> str:
    return file.file


def residency_of(
    sizes: Sizes, budget: int | None, open_file: Callable[[EngineFile], str] = name
) -> tuple[Residency[str], list[EngineFile]]:
    files = files_of(sizes)
    return Residency(files, open_file, budget), files


SIZES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(SIZES, st.integers(0, 60), st.data())
def test_the_budget_is_kept_whatever_is_used(sizes: Sizes, more: int, data: st.DataObject) -> None:
    largest = max(stay + opening for stay, opening in sizes)
    residency, files = residency_of(sizes, largest + more)
    order = data.draw(st.lists(st.sampled_from(files), max_size=20))
    with residency.expect(order):
        for file in order:
            with residency.use(file) as session:
                assert session == file.file
    counters = residency.counters()
    assert counters["peak_bytes"] <= largest + more
    assert counters["loads"] >= len(set(map(name, order)))
    if sum(stay + opening for stay, opening in sizes) <= largest + more:
        assert counters["evictions"] == 0


def test_without_a_budget_nothing_is_closed() -> None:
    residency, files = residency_of([(10, 5)] * 4, None)
    for _ in range(3):
        for file in files:
            with residency.use(file):
                pass
    assert (residency.counters()["loads"], residency.counters()["evictions"]) == (4, 0)


def test_what_goes_round_is_not_opened_anew_each_time() -> None:
    """Of five files four find room: what is needed last goes, so that in each round few are opened, and not all."""
    residency, files = residency_of([(10, 0)] * 5, 40)
    order = files * 10
    with residency.expect(order):
        for file in order:
            with residency.use(file):
                pass
    assert residency.counters()["loads"] <= 5 + 9 * 2


def test_of_what_nobody_expects_the_one_used_longest_ago_goes() -> None:
    opened: list[str] = []

    def note(file: EngineFile) -> str:
        opened.append(file.file)
        return file.file

    residency, (a, b, c) = residency_of([(10, 0)] * 3, 20, note)
    for file in (a, b, a, c, a):
        with residency.use(file):
            pass
    assert opened == ["0", "1", "2"], "b went for c, and a stayed"


def test_the_next_file_is_opened_while_one_is_executed() -> None:
    ahead = threading.Event()

    def note(file: EngineFile) -> str:
        if file.file == "1":
            ahead.set()
        return file.file

    residency, (a, b) = residency_of([(10, 0)] * 2, 20, note)
    with residency.expect([a, b]), residency.use(a):
        assert ahead.wait(SECONDS)


def test_nothing_is_opened_ahead_in_the_place_of_what_is_needed_sooner() -> None:
    residency, (a, b, c) = residency_of([(10, 0)] * 3, 20)
    with residency.expect([a, b, a, b, c]):
        for file in (a, b, a, b, c):
            with residency.use(file):
                pass
    assert residency.counters()["loads"] == 3


def test_what_goes_round_is_not_read_again_for_being_opened_ahead() -> None:
    """Of eight files four find room; one goes for the next file while another is used, and two stay open."""
    residency, files = residency_of([(10, 0)] * 8, 40)
    rounds = 10
    with residency.expect(files * rounds):
        for file in files * rounds:
            with residency.use(file):
                while residency._looking_ahead:  # pyright: ignore[reportPrivateUsage]
                    residency.counters()
    assert residency.counters()["loads"] <= 8 + (rounds - 1) * (8 - 2)
    assert residency.counters()["prefetched"] >= rounds * 4


def test_what_is_waited_for_is_not_closed_for_what_comes_behind_it() -> None:
    opened: list[str] = []
    ahead = threading.Event()

    def open_file(file: EngineFile) -> str:
        opened.append(file.file)
        if file is second:
            ahead.set()
            uses = residency._uses  # pyright: ignore[reportPrivateUsage]
            while uses.distance(second.file) == 0:  # nobody waits for it yet
                residency.counters()
        return file.file

    residency, (first, second, third) = residency_of([(10, 0)] * 3, 10, open_file)
    with residency.expect([first, second, third]):
        with residency.use(first):
            pass
        assert ahead.wait(SECONDS)
        with residency.use(second):
            pass
    assert opened.count(second.file) == 1


def test_nothing_is_opened_ahead_in_the_room_that_is_made_for_another() -> None:
    """Else files that are opened ahead would be closed at once, again and again, by who waits for all of the room."""
    opened: list[str] = []
    ahead = threading.Event()

    def open_file(file: EngineFile) -> str:
        opened.append(file.file)
        if len(opened) == 1:
            ahead.set()
            entries = residency._entries  # pyright: ignore[reportPrivateUsage]
            while large.file not in entries:  # nobody waits for room yet
                residency.counters()
        return file.file

    residency, (large, *small) = residency_of([(1, 39), *[(10, 0)] * 6], 40, open_file)
    with residency.expect(small):
        assert ahead.wait(SECONDS)
        with residency.use(large):
            pass
    assert opened[:2] == [small[0].file, large.file]


def test_many_threads_come_to_an_end_within_the_budget() -> None:
    residency, files = residency_of([(size, size) for size in (3, 5, 7, 11)], 25)
    order = random.Random(0)
    sequences = [[order.choice(files) for _ in range(50)] for _ in range(8)]

    def work(sequence: list[EngineFile]) -> int:
        with residency.reserve(1, files), residency.expect(sequence):
            for file in sequence:
                with residency.use(file) as session:
                    assert session == file.file
        return len(sequence)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, sequences, timeout=SECONDS)) == 400
    assert residency.counters()["peak_bytes"] <= 25


def test_a_file_is_opened_once_for_all_who_wait_for_it() -> None:
    begun, go_on = threading.Event(), threading.Event()
    opened: Counter[str] = Counter()

    def slow(file: EngineFile) -> str:
        opened[file.file] += 1
        begun.set()
        assert go_on.wait(SECONDS)
        return file.file

    residency, (file,) = residency_of([(10, 0)], 10, slow)

    def use() -> str:
        with residency.use(file) as session:
            return session

    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(use) for _ in range(4)]
        assert begun.wait(SECONDS)
        go_on.set()
        assert [one.result(SECONDS) for one in waiting] == ["0"] * 4
    assert opened == {"0": 1}


def test_what_fails_to_open_is_told_and_tried_again() -> None:
    broken = [True]

    def open_file(file: EngineFile) -> str:
        if broken[0]:
            raise TargetError("cannot load this engine", where=file.file)
        return file.file

    residency, (a, b) = residency_of([(10, 0)] * 2, 10, open_file)
    with residency.expect([a, b]):
        for _ in range(2):
            with pytest.raises(TargetError, match="cannot load this engine"), residency.use(a):
                pass
        broken[0] = False
        with residency.use(b) as session:
            assert session == "1"
        with residency.use(a) as session:
            assert session == "0"


def test_what_is_open_is_told_whatever_happens_to_it() -> None:
    """Opened, failed, closed because nobody needs it any more, and closed to make room."""

    def open_file(file: EngineFile) -> str:
        if file.file == "2":
            raise TargetError("cannot load this engine", where=file.file)
        return file.file

    residency, files = residency_of([(10, 5), (10, 5), (10, 5), (25, 0)], 40, open_file)
    series = (RESIDENT, (("budget", "device"), ("kind", "engines")))
    with recording() as recorder:

        def told_after(file: EngineFile) -> float:
            with residency.use(file):
                pass
            return recorder.values[series]

        assert [told_after(file) for file in files[:2]] == [10, 20]
        with pytest.raises(TargetError):
            told_after(files[2])
        assert recorder.values[series] == 20
        residency.close(files[:1])
        assert recorder.values[series] == 10
        assert [told_after(files[0]), told_after(files[3])] == [20, 35]


def test_reservations_wait_for_each_other() -> None:
    residency, files = residency_of([(10, 0)], 30)
    second = threading.Event()

    def reserve() -> None:
        with residency.reserve(15, files):
            second.set()

    with ThreadPoolExecutor(1) as threads:
        with residency.reserve(15, files):
            waiting = threads.submit(reserve)
            with residency.use(files[0]):
                assert not second.is_set(), "both and a file are 40"
        waiting.result(SECONDS)
    assert residency.counters()["peak_bytes"] <= 30


def test_room_is_made_for_a_reservation() -> None:
    residency, files = residency_of([(10, 0)] * 3, 40)
    for file in files:
        with residency.use(file):
            pass
    with residency.reserve(30, files):
        assert residency.counters()["evictions"] == 2


def test_a_budget_that_is_a_byte_too_small_is_refused_with_the_figure() -> None:
    residency, files = residency_of([(10, 5)], 44)
    with residency.reserve(29, files), residency.use(files[0]) as session:
        assert session == "0"
    with pytest.raises(TargetError, match="1 are missing") as caught, residency.reserve(30, files):
        pass
    assert caught.value.hint is not None and "at least 45 bytes" in caught.value.hint


def test_a_file_of_which_nothing_is_known_keeps_no_budget() -> None:
    file = EngineFile("denoiser", "step", 0, "any", "cpu", None, "cpu", "0", (), ())
    with pytest.raises(TargetError, match="does not say how much memory 0 takes"):
        Residency([file], name, 100)
    with Residency([file], name).use(file) as session:
        assert session == "0"


def test_what_is_closed_is_opened_again() -> None:
    residency, files = residency_of([(10, 0)] * 2, None)
    for _ in range(2):
        with residency.use(files[0]):
            residency.close(files)  # not what is in use
        residency.close(files)
    assert residency.counters()["loads"] == 2


class Loaded:
    """What an open file is made of."""


def test_what_is_closed_is_gone_before_the_next_one_is_opened() -> None:
    """Else there would be more in memory than the budget has room for."""
    alive: weakref.WeakSet[Loaded] = weakref.WeakSet()

    def load(_: EngineFile) -> Loaded:
        assert not alive
        alive.add(loaded := Loaded())
        return loaded

    files = files_of([(10, 0)] * 3)
    residency = Residency(files, load, 10)
    with residency.expect(files * 20):
        for file in files * 20:
            with residency.use(file):
                assert len(alive) == 1


def test_a_file_that_the_budget_never_has_room_for_is_refused() -> None:
    residency, files = residency_of([(10, 5), (1, 0)], 14)
    with pytest.raises(TargetError, match="1 are missing"), residency.use(files[0]):
        pass
    with residency.use(files[1]) as session:
        assert session == "1"


# Arrays


def in_pages(*sizes: int) -> Sizes:
    """Files of so many pages."""
    return [(size * PAGE, 0) for size in sizes]


PHASES = st.lists(
    st.tuples(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 10)), max_size=8)), max_size=6
)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(PHASES, st.integers(0, 40), st.data())
def test_files_and_arrays_are_one_account(
    phases: list[tuple[int, list[tuple[int, int]]]], more: int, data: st.DataObject
) -> None:
    """Whatever was kept of earlier phases: within what is reserved for them, arrays never lead over the budget."""
    largest, budget = 7, (7 + 30 + more) * PAGE
    residency, files = residency_of(in_pages(3, 5, largest), budget)
    for reserved, uses in phases:
        with residency.reserve(reserved * PAGE, files):
            arrays: list[np.ndarray] = []
            for number, size in uses:
                with residency.use(files[number]):
                    # A buffer may have a page more than was asked for.
                    if residency.pool.counts().out + (size + 1) * PAGE <= reserved * PAGE:
                        arrays.append(residency.pool.empty((size * PAGE,), np.uint8))
                if arrays and data.draw(st.booleans()):
                    arrays.pop()
            arrays.clear()
    assert residency.counters()["peak_bytes"] <= budget
    assert residency.pool.counts().out == 0


def test_what_is_kept_goes_before_a_file_is_closed_and_stays_where_there_is_room() -> None:
    residency, files = residency_of(in_pages(10), 40 * PAGE)
    with residency.use(files[0]):
        pass
    with residency.reserve(20 * PAGE, files):
        residency.pool.empty((20 * PAGE,), np.uint8)
    with residency.reserve(10 * PAGE, files):
        assert residency.pool.counts().kept == 20 * PAGE
    with residency.reserve(11 * PAGE, files):
        assert residency.pool.counts().kept == 0
    assert residency.counters()["evictions"] == 0
    assert residency.counters()["peak_bytes"] == 40 * PAGE


def test_what_a_phase_gives_back_is_there_for_its_next_step_however_tight_the_budget_is() -> None:
    residency, files = residency_of(in_pages(10, 10, 10), 20 * PAGE)
    with residency.reserve(10 * PAGE, files), residency.expect(files * 5):
        for file in files * 5:
            with residency.use(file):
                residency.pool.empty((10 * PAGE,), np.uint8)
    assert residency.counters()["evictions"] == 14
    assert residency.pool.counts().taken == 10 * PAGE


def test_nobody_waits_for_arrays_that_somebody_holds() -> None:
    residency, files = residency_of(in_pages(10, 10), 20 * PAGE)
    held = residency.pool.empty((30 * PAGE,), np.uint8)

    def use_both() -> int:
        with residency.reserve(5 * PAGE, files):
            for file in files:
                with residency.use(file):
                    pass
        return residency.counters()["evictions"]

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(use_both).result(SECONDS) == 1, "as little else as can be is open beside them"
    assert held.nbytes == residency.pool.counts().out


# What has no room


def test_what_is_next_and_has_no_room_is_read_once() -> None:
    read, done = list[str](), threading.Event()

    def read_file(file: EngineFile) -> None:
        read.append(file.file)
        done.set()

    files = files_of([(10, 0)] * 3)
    residency = Residency(files, name, 10, read_file)
    with residency.expect([*files, *files]):
        for number, file in enumerate([*files, *files]):
            with residency.use(file):
                if number < 5:
                    assert done.wait(SECONDS)
                done.clear()
    assert read == ["1", "2", "0", "1", "2"]


def test_what_has_room_is_opened_and_not_read() -> None:
    read = list[str]()
    files = files_of([(10, 0)] * 3)
    residency = Residency(files, name, 30, lambda file: read.append(file.file))
    with residency.expect(files):
        for file in files:
            with residency.use(file):
                pass
    assert read == []


def test_what_cannot_be_read_is_for_who_needs_it_to_tell() -> None:
    def read_file(file: EngineFile) -> None:
        raise TargetError(f"{file.file} is gone")

    files = files_of([(10, 0)] * 3)
    residency = Residency(files, name, 10, read_file)
    with residency.expect(files):
        for file in files:
            with residency.use(file) as session:
                assert session == file.file


# Who waits for room


def reserving(residency: Residency[str], size: int, got: list[int], go_on: threading.Event) -> threading.Thread:
    def reserve() -> None:
        with residency.reserve(size, ()):
            got.append(size)
            assert go_on.wait(SECONDS)

    thread = threading.Thread(target=reserve, daemon=True)
    thread.start()
    return thread


def in_line(residency: Residency[str], count: int) -> None:
    """Until so many wait."""
    end = time.monotonic() + SECONDS
    while len(residency._line) < count:
        assert time.monotonic() < end
        threading.Event().wait(0.001)


def test_who_came_first_has_room_first_though_others_ask_for_less() -> None:
    residency, _ = residency_of([(0, 0)], 10)
    got, go_on = list[int](), threading.Event()
    with residency.reserve(8, ()):
        threads = list[threading.Thread]()
        for count, size in enumerate((9, 2, 1), 1):
            threads.append(reserving(residency, size, got, go_on))
            in_line(residency, count)
        assert got == []
    end = time.monotonic() + SECONDS
    while got != [9]:
        assert time.monotonic() < end
    assert len(residency._line) == 2, "beside the first nothing fits but the last one, which came last"
    go_on.set()
    for thread in threads:
        thread.join(SECONDS)
    assert got == [9, 2, 1] and residency._reserved == 0


def test_without_a_budget_it_is_the_machine_that_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrays have of it already is the reservations' own."""
    monkeypatch.setattr(residency_module, "available_bytes", lambda: 10 * PAGE)
    residency, _ = residency_of([(0, 0)], None)
    assert residency.room == 10 * PAGE
    array = residency.pool.empty((2 * PAGE,), np.uint8)
    assert residency.room == 12 * PAGE
    got, go_on = list[int](), threading.Event()
    go_on.set()
    with residency.reserve(7 * PAGE, ()):
        thread = reserving(residency, 6 * PAGE, got, go_on)
        in_line(residency, 1)
        with residency.reserve(0, ()):
            pass  # who asks for nothing waits for nobody
        assert got == []
    thread.join(SECONDS)
    assert got == [6 * PAGE]
    del array


@pytest.mark.parametrize("holders", [1, 2, 3])
def test_shared_room_is_reserved_while_anybody_is_in_it(holders: int) -> None:
    residency, _ = residency_of([(0, 0)], 10)
    room = SharedRoom(lambda: residency.reserve(8, ()))
    for _ in range(2):
        with ExitStack() as inside:
            for _ in range(holders):
                inside.enter_context(room)
                assert residency._reserved == 8
        assert residency._reserved == 0
