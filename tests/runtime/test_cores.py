"""How many threads a run has: what was asked for where there are as many, what the recipe says where it fits."""

from __future__ import annotations

import logging

import pytest

from wanc.runtime import cores
from wanc.runtime.cores import threads_to_use
from wanc.runtime.errors import UserError


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: 4)


@pytest.mark.parametrize(("asked", "recipe", "used"), [(None, 0, 0), (None, 3, 3), (None, 4, 4), (0, 3, 0), (4, 1, 4)])
def test_what_fits_is_used(asked: int | None, recipe: int, used: int, caplog: pytest.LogCaptureFixture) -> None:
    assert threads_to_use(asked, recipe) == used
    assert caplog.text == ""


@pytest.mark.parametrize("recipe", [5, 64, 1024])
def test_a_bundle_moves_to_a_smaller_machine(recipe: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert threads_to_use(None, recipe) == 4
    message = f"note: the bundle asks for {recipe} threads, and this machine has 4: all are used"
    assert [record.getMessage() for record in caplog.records] == [message]


@pytest.mark.parametrize("asked", [5, 100_000, 2**63])
def test_more_than_there_are_is_refused(asked: int) -> None:
    with pytest.raises(UserError) as caught:
        threads_to_use(asked, 0)
    assert (caught.value.message, caught.value.hint) == (
        f"{asked} threads",
        "this machine has 4: ask for 1 to 4, or 0 for every core",
    )
