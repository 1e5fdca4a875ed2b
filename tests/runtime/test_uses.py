"""How soon something is used, by all requests that are under way."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.runtime.uses import Uses

NAMES = st.lists(st.sampled_from("abcd"), max_size=12)


@settings(deadline=None, derandomize=True)
@given(NAMES, st.integers(0, 12))
def test_distances_are_those_of_the_rest_of_the_line(names: list[str], done: int) -> None:
    uses = Uses()
    uses.add(names)
    for name in names[:done]:
        uses.advance(name)
    rest = names[done:]
    for name in "abcd":
        assert uses.distance(name) == (rest.index(name) if name in rest else math.inf)
    assert list(uses.upcoming()) == sorted(set(rest), key=rest.index)


def test_the_soonest_use_of_all_lines_counts() -> None:
    uses = Uses()
    first, second = uses.add(["a", "b", "c"]), uses.add(["c", "a"])
    assert [uses.distance(name) for name in "abc"] == [0, 1, 0]
    uses.remove(second)
    assert uses.distance("c") == 2
    uses.remove(first)
    assert list(uses.upcoming()) == []


def test_what_was_expected_and_left_out_is_passed_over() -> None:
    uses = Uses()
    uses.add(["time", "step", "step"])
    uses.advance("step")
    assert (uses.distance("time"), uses.distance("step")) == (math.inf, 0)


def test_another_request_s_use_moves_no_line() -> None:
    uses = Uses()
    uses.add(["a"] * 100 + ["b"])
    uses.advance("b")
    assert uses.distance("a") == 0
