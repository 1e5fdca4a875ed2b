"""Two rules for what stays in float."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanc.calibration.sensitivity import kept_by_drop, kept_by_share

EFFECTS = st.dictionaries(st.text("abcdef", min_size=1), st.floats(0, 1e6, allow_subnormal=False), min_size=1)


def test_what_stands_out_is_kept_and_equals_are_not() -> None:
    equals = {f"blocks.{index}": 1.0 for index in range(10)}  # each alone costs 10 · log10(10 / 9) = 0.46 dB
    assert kept_by_drop(equals, 0.5) == {}
    kept = kept_by_drop({**equals, "last": 90.0}, 0.5)
    assert kept == {"last": "costs 10.00 dB of the final latents, more than max_drop_db 0.5"}


def test_the_next_one_is_judged_without_those_that_are_kept() -> None:
    """Beside 100 a 10 costs 0.4 dB, and 3.4 dB of what is left."""
    effects = {"a": 100.0, "b": 10.0, **{f"c{index}": 1.0 for index in range(8)}}
    assert list(kept_by_drop(effects, 1.0)) == ["a", "b"]


@given(EFFECTS, st.floats(0.01, 20))
def test_no_one_that_is_left_costs_more_than_is_allowed(effects: dict[str, float], most: float) -> None:
    left = {name: effect for name, effect in effects.items() if name not in kept_by_drop(effects, most)}
    assert left, "one is never too many for itself"
    total = math.fsum(left.values())
    for effect in left.values():
        # Sums of floats are a little off.
        assert len(left) == 1 or total == 0 or total - effect >= total * 10 ** (-most / 10) * (1 - 1e-9)


def test_the_worst_for_their_flops_are_kept_as_long_as_the_share_allows() -> None:
    flops = {"float": 0.1, "a": 0.4, "b": 0.2, "c": 0.2, "d": 0.1}
    effects = {"a": 5.0, "b": 4.0, "c": 1.0, "d": 1.5}  # for its FLOPs b costs 20, d 15, a 12.5, c 5
    assert list(kept_by_share(effects, flops, 0.6)) == ["b", "d"]
    assert list(kept_by_share(effects, flops, 0.75)) == ["d"]
    assert kept_by_share(effects, flops, 0.9) == {}


def test_nothing_is_kept_for_nothing() -> None:
    assert kept_by_share({"a": 0.0, "b": 0.0}, {"a": 0.5, "b": 0.5}, 0.1) == {}
    assert kept_by_drop({"a": 0.0, "b": 0.0}, 0.5) == {}


@given(EFFECTS, st.floats(0.01, 1))
def test_the_share_holds(effects: dict[str, float], share: float) -> None:
    flops = dict.fromkeys(effects, 1 / len(effects))
    kept = kept_by_share(effects, flops, share)
    left = math.fsum(flops[name] for name in effects.keys() - kept.keys())
    assert left >= share - 1e-9 or not kept
    if kept and len(kept) < len(effects):
        cost = {name: effects[name] / flops[name] for name in effects}
        assert min(cost[name] for name in kept) >= max(cost[name] for name in effects.keys() - kept.keys())


def test_a_reason_says_what_is_left() -> None:
    kept = kept_by_share({"a": 2.0, "b": 1.0}, {"a": 0.25, "b": 0.75}, 0.5)
    assert kept == {"a": "is among the worst for its FLOPs; the others still have 75.0% of all"}


@pytest.mark.parametrize("rule", [0.5, 40.0])
def test_the_last_one_is_not_kept(rule: float) -> None:
    assert kept_by_drop({"a": 1.0}, rule) == {}
