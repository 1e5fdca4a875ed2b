"""The search finds what trying everything finds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.compiler.planner.search import Cut, Objective, Place, SearchProblem, Seconds, search


def every_placement(problem: SearchProblem, parts: int) -> Iterator[tuple[tuple[int, int, Place], ...]]:
    """All rows of segments on groups, by hand: choose a group and an end, then the rest."""

    def rest(start: int, free: tuple[int, ...]) -> Iterator[tuple[tuple[int, int, Place], ...]]:
        if start == parts:
            if problem.allow_idle or not any(free):
                yield ()
            return
        for place in problem.seconds:
            if free[place.pool] < place.ranks:
                continue
            left = tuple(count - place.ranks if pool == place.pool else count for pool, count in enumerate(free))
            for stop in range(start + 1, parts + 1):
                for others in rest(stop, left):
                    yield ((start, stop, place), *others)

    yield from rest(0, problem.counts)


def worth(problem: SearchProblem, placement: tuple[tuple[int, int, Place], ...], objective: Objective) -> float:
    numbers = [float(problem.seconds[place][start, stop]) for start, stop, place in placement]
    for (_, stop, one), (_, _, other) in pairwise(placement):
        numbers.append(float(problem.transfers[one, other][stop]))
    return max(numbers) if objective == "bottleneck" else sum(numbers)


@st.composite
def problems(draw: st.DrawFn) -> SearchProblem:
    """Up to five parts on up to four devices of up to two kinds; some segments fit on some groups only."""
    parts = draw(st.integers(1, 5))
    counts = draw(st.sampled_from([(1,), (2,), (3,), (4,), (1, 1), (2, 1), (2, 2), (1, 1, 1)]))
    able = [Place(pool, ranks) for pool, count in enumerate(counts) for ranks in (1, 2, 4) if ranks <= count]
    places = draw(st.lists(st.sampled_from(able), min_size=1, unique=True))
    numbers = st.integers(0, 20).map(float)
    seconds: dict[Place, Seconds] = {}
    for place in places:
        each = draw(st.lists(numbers, min_size=parts, max_size=parts))
        needs = draw(st.lists(st.integers(0, 5), min_size=parts, max_size=parts))
        memory = draw(st.integers(3, 20))
        table = np.full((parts + 1, parts + 1), np.inf)
        for start in range(parts):
            for stop in range(start + 1, parts + 1):
                if sum(needs[start:stop]) <= memory:
                    table[start, stop] = sum(each[start:stop]) / place.ranks
        seconds[place] = table
    transfers = {
        (one, other): np.array(draw(st.lists(numbers, min_size=parts + 1, max_size=parts + 1)))
        for one in places
        for other in places
    }
    return SearchProblem(counts, seconds, transfers, draw(st.booleans()))


@settings(max_examples=600, deadline=None)
@given(problems(), st.sampled_from(["bottleneck", "sum"]))
def test_equals_trying_everything(problem: SearchProblem, objective: Objective) -> None:
    parts = len(next(iter(problem.seconds.values()))) - 1
    values = [worth(problem, placement, objective) for placement in every_placement(problem, parts)]
    least = min(values, default=np.inf)
    found = search(problem, objective)
    if found is None:
        assert least == np.inf
        return
    assert found.value == pytest.approx(least)
    placement = tuple((cut.start, cut.stop, cut.place) for cut in found.cuts)
    assert placement in list(every_placement(problem, parts))
    assert worth(problem, placement, objective) == pytest.approx(least)


def uniform(parts: int, places: list[Place], counts: tuple[int, ...], *, allow_idle: bool = False) -> SearchProblem:
    """Every part takes a second."""
    steps = np.arange(parts + 1.0)
    length = np.where(steps[None, :] > steps[:, None], steps[None, :] - steps[:, None], np.inf)
    seconds = {place: length / place.ranks for place in places}
    nothing = np.zeros(parts + 1)
    return SearchProblem(counts, seconds, {(one, two): nothing for one in places for two in places}, allow_idle)


def test_equal_parts_are_shared_out_evenly() -> None:
    found = search(uniform(40, [Place(0)], (4,)), "bottleneck")
    assert found is not None
    assert [cut.stop - cut.start for cut in found.cuts] == [10, 10, 10, 10]


def test_of_equally_good_placements_the_one_with_fewer_devices_is_taken() -> None:
    found = search(uniform(4, [Place(0)], (3,), allow_idle=True), "sum")
    assert found is not None
    assert found.cuts == (Cut(0, 4, Place(0)),)


def test_more_devices_than_parts_leave_some_idle_which_has_to_be_allowed() -> None:
    assert search(uniform(2, [Place(0)], (3,)), "bottleneck") is None
    assert search(uniform(2, [Place(0)], (3,), allow_idle=True), "bottleneck") is not None


@pytest.mark.parametrize(
    ("counts", "sizes"), [((8,), (1, 2, 4, 8)), ((4, 4), (1, 2, 4)), ((1,) * 8, (1,))], ids=["equal", "two", "unequal"]
)
def test_forty_blocks_on_eight_devices_take_seconds(counts: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    places = [Place(pool, ranks) for pool, count in enumerate(counts) for ranks in sizes if ranks <= count]
    began = time.perf_counter()
    found = search(uniform(42, places, counts), "bottleneck")
    assert time.perf_counter() - began < 5
    assert found is not None
