"""The time that is left: within a quarter of the truth, or not told. Tasks are simulated, unit by unit."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from wanc.runtime.progress import ProgressBar

from .test_progress import Clock, Terminal

TOLERANCE = 0.25
Pace = Callable[[float], float]
"""How long a unit takes, in any measure, by the share of the work that lies before it."""


def steps(*marks: tuple[float, float]) -> Pace:
    """Of (share, pace) the last one whose share is reached."""
    return lambda share: [pace for begins, pace in marks if share >= begins][-1]


PACES: dict[str, Pace] = {
    "linear": lambda _: 1,
    "slow start": steps((0, 30), (0.03, 1)),
    "a first unit that takes half of the time": steps((0, 300), (1 / 300, 1)),
    "slower from the middle": steps((0, 1), (0.5, 4)),
    "faster from the middle": steps((0, 4), (0.5, 1)),
    "much slower from a third": steps((0, 1), (0.33, 20)),
    "a little slower from the middle": steps((0, 1), (0.5, 1.15)),
    "three speeds": steps((0, 1), (0.2, 7), (0.45, 2)),
    "slower and slower": lambda share: 0.2 + 2 * share,
    "faster and faster": lambda share: 2.2 - 2 * share,
    "in turns": lambda share: 1 + 0.3 * (int(share * 64) % 2),
    "a slow file in the middle": steps((0, 1), (0.4, 25), (0.43, 1)),
}


def errors(pace: Pace, units: int, seconds: float, *, jitter: float = 0.0) -> list[float]:
    """By how much each time was wrong that a bar told in a task of so many seconds; it is asked every second."""
    chance = random.Random(5)
    weights = [pace(index / units) * chance.uniform(1 - jitter, 1 + jitter) for index in range(units)]
    lengths = [weight / sum(weights) * seconds for weight in weights]
    clock, found = Clock(), list[float]()
    with ProgressBar("work", units, stream=Terminal(), clock=clock) as bar:
        end = clock.now + seconds
        for length in lengths:
            ready = clock.now + length
            while clock.now < ready - 1:
                clock.now += 1
                found += _error(bar, end - clock.now)
            clock.now = ready
            bar.advance()
            found += _error(bar, end - clock.now)
    return found


def _error(bar: ProgressBar, truth: float) -> list[float]:
    """As it is shown, in whole seconds."""
    bar._drawn = bar._clock()  # what a redraw would show now
    told = bar._line().partition(", ")[2].removesuffix(" left")
    if not told:
        return []
    shown = sum(int(part) * 60**place for place, part in enumerate(reversed(told.split(":"))))
    return [abs(shown - truth) / truth]


@pytest.mark.parametrize("units", [8, 20, 50, 300])
@pytest.mark.parametrize("seconds", [12, 90, 1200])
@pytest.mark.parametrize("name", PACES)
def test_a_time_that_is_told_is_true(name: str, seconds: float, units: int) -> None:
    assert max(errors(PACES[name], units, seconds), default=0) <= TOLERANCE


@pytest.mark.parametrize("name", ["linear", "slow start", "slower from the middle", "faster from the middle"])
def test_it_is_told_in_the_end(name: str) -> None:
    """Being silent is no way to be true: in what goes evenly a fifth of all looks shows a time."""
    told = len(errors(PACES[name], 300, 60))
    assert told >= (60 if name in ("linear", "slow start") else 10)


@pytest.mark.parametrize("jitter", [0.05, 0.2])
def test_units_that_vary_a_little(jitter: float) -> None:
    told = errors(PACES["linear"], 300, 600, jitter=jitter)
    assert told and max(told) <= TOLERANCE


def test_a_task_that_stops_is_not_believed_any_longer() -> None:
    clock, terminal = Clock(), Terminal()
    with ProgressBar("work", 100, stream=terminal, clock=clock) as bar:
        for _ in range(70):
            clock.now += 1
            bar.advance()
        assert terminal.lines()[-1].endswith(" 0:30 left")
        clock.now += 30
        bar.advance(0)
        assert " left" not in terminal.lines()[-1]


@pytest.mark.parametrize("finished", [10, 70, 90])
def test_what_an_earlier_run_had_finished_says_nothing_of_the_pace(finished: int) -> None:
    clock, terminal = Clock(), Terminal()
    told = list[float]()
    with ProgressBar("train", 100, stream=terminal, clock=clock) as bar:
        bar.advance(finished)
        for done in range(finished, 100):
            clock.now += 10
            bar.advance()
            told += _error(bar, (99 - done) * 10 or 1e-9)
    assert max(told, default=0) <= TOLERANCE
    assert bool(told) is (finished < 75)


def test_bytes_that_are_counted_by_the_million() -> None:
    assert max(errors(PACES["slower from the middle"], 4000, 40)) <= TOLERANCE
