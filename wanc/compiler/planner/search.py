"""The exact search: a row of parts cut into segments, each placed on a group of equal devices.

Dynamic programming over how many devices of each pool are used, the group that has the last segment, and the cut behind
it. For one such state only the best value matters, because what follows depends on nothing else and both objectives
only grow. All cuts of a state are one numpy vector.

A stage's seconds are those of all executions for one video. A link is a stage of its own: sending overlaps with
computing for another request or branch, so that a bottleneck is the slowest device or the slowest link.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Objective = Literal["bottleneck", "sum"]
Seconds = NDArray[np.float64]
_Join = Callable[[Seconds, Seconds], Seconds]
_Used = tuple[int, ...]


@dataclass(frozen=True, order=True)
class Place:
    """A group of `ranks` devices of one pool."""

    pool: int
    ranks: int = 1


@dataclass(frozen=True)
class Cut:
    """Parts start … stop - 1 of a row, on a group of devices."""

    start: int
    stop: int
    place: Place


@dataclass(frozen=True)
class SearchProblem:
    """What is searched: `counts` of devices of each pool, and what segments and cuts cost.

    `seconds[place][start, stop]` is that of a segment on a group, inf where it is not allowed; its shape is
    [parts + 1, parts + 1]. `transfers[place, next place][cut]` is that of what crosses a cut. Without `allow_idle`
    every device has to be used.
    """

    counts: tuple[int, ...]
    seconds: Mapping[Place, Seconds]
    transfers: Mapping[tuple[Place, Place], Seconds]
    allow_idle: bool = False


@dataclass(frozen=True)
class Solution:
    """The segments in their order, and the bottleneck or the sum that they reach."""

    cuts: tuple[Cut, ...]
    value: float


@dataclass
class _Reached:
    """Of one state, by the cut that is reached: the best value, where the last segment began, and whom it followed."""

    values: Seconds
    starts: NDArray[np.intp]
    previous: list[Place | None]

    def improve(self, values: Seconds, starts: NDArray[np.intp], previous: Place | None) -> None:
        for cut in np.flatnonzero(values < self.values):
            self.values[cut], self.starts[cut], self.previous[cut] = values[cut], starts[cut], previous


def search(problem: SearchProblem, objective: Objective) -> Solution | None:
    """The best placement, None if there is none. Of equally good ones the one with the fewest devices comes first."""
    join: _Join = np.maximum if objective == "bottleneck" else np.add
    size = next(iter(problem.seconds.values())).shape[0]
    at_start = np.full(size, np.inf)
    at_start[0] = 0.0
    reached: dict[_Used, dict[Place | None, _Reached]] = {}
    reached[(0,) * len(problem.counts)] = {None: _Reached(at_start, np.zeros(size, np.intp), [None] * size)}
    for used in sorted(product(*(range(count + 1) for count in problem.counts)), key=sum):
        for last, state in reached.get(used, {}).items():
            for place, seconds in problem.seconds.items():
                after = _after(used, place, problem.counts)
                if after is None:
                    continue
                begun = state.values if last is None else join(state.values, problem.transfers[last, place])
                costs = join(begun[:, None], seconds)
                starts = costs.argmin(axis=0)
                empty = _Reached(np.full(size, np.inf), np.zeros(size, np.intp), [None] * size)
                target = reached.setdefault(after, {}).setdefault(place, empty)
                target.improve(costs[starts, np.arange(size)], starts, last)
    return _best(problem, reached)


def _after(used: _Used, place: Place, counts: _Used) -> _Used | None:
    """What is used once a group is taken; None where there are too few devices."""
    number = used[place.pool] + place.ranks
    if number > counts[place.pool]:
        return None
    return (*used[: place.pool], number, *used[place.pool + 1 :])


def _best(problem: SearchProblem, reached: Mapping[_Used, Mapping[Place | None, _Reached]]) -> Solution | None:
    ends = [
        (state.values[-1], sum(used), used, place)
        for used, states in reached.items()
        for place, state in states.items()
        if place is not None and np.isfinite(state.values[-1]) and (problem.allow_idle or used == problem.counts)
    ]
    if not ends:
        return None
    value, _, used, place = min(ends)
    cuts: list[Cut] = []
    stop, last = -1, place
    while last is not None:
        state = reached[used][last]
        start, here = int(state.starts[stop]), last
        cuts.append(Cut(start, stop if stop >= 0 else len(state.previous) - 1, here))
        last = state.previous[stop]
        used = tuple(number - here.ranks * (pool == here.pool) for pool, number in enumerate(used))
        stop = start
    return Solution(tuple(reversed(cuts)), float(value))
