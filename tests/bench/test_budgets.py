"""What has to hold of two experts within budgets: every bound turns red. `python bench/budgets.py` measures them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from scripts.true_scale.budgets import MIB, SHARES, SLACK, at_the_switch, faults, table

BUDGET = 1000 * MIB


def video(**changed: Any) -> dict[str, Any]:
    return {"seconds": 10.0, "steps": [3.0, 2.0, 2.0, 2.0], "latents": "a", "frames": "b", **changed}


def row(share: float, *, is_limited: bool) -> dict[str, Any]:
    return {
        "share": share,
        "is_limited": is_limited,
        "budget": BUDGET,
        "predicted": BUDGET,
        "base_rss": 200 * MIB,
        "peak_rss": BUDGET + 200 * MIB,
        "counted_peak": BUDGET,
        "videos": [video(), video()],
    }


GOOD: dict[str, Any] = {
    "least_budget": 77,
    "one_byte_less": "allow at least 77 bytes",
    "rows": [row(share, is_limited=limited) for share in SHARES for limited in (False, True)],
}
HALF = SHARES.index(0.5) * 2


@pytest.mark.parametrize(
    ("index", "changed", "said"),
    [
        (0, {"peak_rss": BUDGET + SLACK + 1, "base_rss": SLACK}, "at the peak"),
        (5, {"counted_peak": BUDGET + 1}, "were counted"),
        (3, {"counted_peak": 0.89 * BUDGET}, "predicted"),
        (3, {"base_rss": 310 * MIB}, "taken"),
        (2, {"videos": [video(), video(latents="c")]}, "latents"),
        (4, {"videos": [video(steps=[3.0, 2.0, 5.1, 2.0]), video()]}, "switch"),
    ],
)
def test_each_bound_turns_red(index: int, changed: dict[str, Any], said: str) -> None:
    document = copy.deepcopy(GOOD)
    assert list(faults(document)) == []
    for other in (index, index ^ 1):  # both of a share, of which the median is taken
        document["rows"][other].update(changed if other == index or said == "switch" else {})
    (fault,) = faults(document)
    assert said in fault


def test_half_of_the_weights_may_take_a_quarter_longer() -> None:
    document = copy.deepcopy(GOOD)
    for number in (HALF, HALF + 1):
        document["rows"][number]["videos"][0]["seconds"] = 12.4
    assert list(faults(document)) == []
    for number in (HALF, HALF + 1):
        document["rows"][number]["videos"][0]["seconds"] = 12.6
    (fault,) = faults(document)
    assert "1.26 times as long" in fault


def test_a_refusal_names_the_least_budget() -> None:
    (fault,) = faults({**GOOD, "one_byte_less": "no room"})
    assert "no room" in fault


def test_the_first_step_of_the_other_expert_is_compared_with_those_that_change_nothing() -> None:
    assert at_the_switch({"steps": [9.0, 2.0, 3.0, 2.0]}) == 1.5


def test_the_table_has_a_line_for_each_case() -> None:
    lines = table(GOOD["rows"]).splitlines()
    assert sum(line.startswith(("| 100%", "| 50%", "| 25%")) for line in lines) == 6
