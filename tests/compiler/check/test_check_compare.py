"""When an output is the source's: forms, values, what rounding does, and what the source itself cannot tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wanc.compiler.check.compare import compare
from wanc.compiler.check.trials import Trial
from wanc.compiler.engines.kernels import Precision
from wanc.models.graph import Output

X = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)


def found(
    expected: Any, given: Any, precision: Precision = "float32", moved: Any = None, random: frozenset[str] = frozenset()
) -> list[str]:
    """What speaks against `given`, as texts."""
    asked: list[None] = []

    def move() -> dict[str, Any]:
        asked.append(None)
        return {"y": expected if moved is None else moved}

    expected, given = np.asarray(expected), np.asarray(given)
    trial = Trial("noise", {}, {}, {"y": expected}, move)
    outputs = (Output("y", (), dtype=expected.dtype.name),)
    compared = compare(outputs, trial, {"y": given}, precision, random)
    assert bool(asked) <= bool(compared.differences or moved is not None), "it is asked only where something differs"
    return [difference.text for difference in compared.differences]


def test_what_is_equal_passes() -> None:
    assert found(X, X) == found(X > 0, X > 0) == found(np.float32(3), np.float32(3)) == []


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (X[:-1], "is float32 [39, 30], and float32 [40, 30] in the source"),
        (X[None], "is float32 [1, 40, 30], and float32 [40, 30] in the source"),
        (X.astype(np.float64), "is float64 [40, 30], and float32 [40, 30] in the source"),
    ],
)
def test_forms_are_equal(given: Any, text: str) -> None:
    assert found(X, given) == [text]


def test_an_output_that_is_not_there() -> None:
    trial = Trial("noise", {}, {}, {"y": X}, dict)
    compared = compare((Output("y", ()), Output("z", ())), trial, {"z": X}, "float32")
    assert [(entry.output, entry.text) for entry in compared.differences] == [
        ("y", "is not among what it gives"),
        ("z", "is not among what the source gives"),
    ]


def test_sums_in_another_order_pass() -> None:
    weight = np.random.default_rng(1).normal(size=(30, 30)).astype(np.float32)
    other = np.einsum("ab,bc->ac", X[:, ::-1], weight[::-1])
    assert found(X @ weight, other.astype(np.float32)) == []


def test_a_single_element_does_not_drown_in_the_norm() -> None:
    large = np.random.default_rng(1).normal(size=(2000, 2000)).astype(np.float32)
    given = large.copy()
    given[7, 8] += 0.1  # of all of them 5e-5
    (text,) = found(large, given)
    assert "furthest at [7, 8]" in text


@pytest.mark.parametrize(
    ("precision", "small", "large"), [("float32", 2e-5, 1e-3), ("integer", 2e-3, 5e-2), ("half", 1e-2, 0.2)]
)
def test_the_precision_says_how_far(precision: Precision, small: float, large: float) -> None:
    noise = np.random.default_rng(2).normal(size=X.shape)
    for size, passes in ((small, True), (large, False)):
        assert (found(X, (X + size * noise).astype(np.float32), precision) == []) is passes


@pytest.mark.parametrize(("share", "passes"), [(1.0, True), (2.0, False)])
def test_what_rounds_over_and_over_may_be_as_far_off_as_that_is_far(share: float, passes: bool) -> None:
    noise = np.random.default_rng(2).normal(size=X.shape)
    rounded, given = X.astype(np.float32), (X + share * 0.1 * noise).astype(np.float32)
    trial = Trial("noise", {}, {}, {"y": rounded}, lambda: {"y": rounded})
    unrounded = {"y": (X + 0.1 * np.random.default_rng(3).normal(size=X.shape)).astype(np.float32)}
    outputs = (Output("y", X.shape),)
    compared = compare(outputs, trial, {"y": given}, "integer convolutions", unrounded=unrounded)
    assert (not compared.differences) is passes
    assert compare(outputs, trial, {"y": given}, "integer convolutions").differences


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_format_says_how_far(dtype: type) -> None:
    x, eps = X.astype(dtype), float(np.finfo(dtype).eps)
    assert found(x, (x * (1 + eps)).astype(dtype)) == []
    assert found(x, (x * 1.02).astype(dtype)) != []


def test_whole_numbers_are_equal() -> None:
    large = np.array([2**40 + 1, 5])
    assert found(large, large - [2**32, 0]) == ["differs in 1 of 2 elements"]


def test_a_nan_is_no_number_but_the_source_s_own_tells_nothing() -> None:
    with_nan = np.where(X > 2, np.nan, X).astype(np.float32)
    assert found(X, with_nan) != []
    assert found(with_nan, X) == []


def test_infinities_are_told_apart() -> None:
    with_inf = np.where(X > 2, np.inf, X).astype(np.float32)
    assert found(with_inf, with_inf) == []
    assert found(with_inf, X) != [] and found(with_inf, np.where(X > 2, -np.inf, X).astype(np.float32)) != []


def test_a_source_that_moves_as_far_itself_cannot_tell() -> None:
    noise = np.random.default_rng(3).normal(size=X.shape) * 0.01
    off = (X + noise).astype(np.float32)
    assert found(X, off, moved=(X - noise).astype(np.float32)) == []
    assert found(X, off, moved=(X - noise / 100).astype(np.float32)) != []
    assert found(X, off, moved=np.full_like(X, np.nan)) != []


def test_so_it_is_of_what_is_chosen_by_floats() -> None:
    chosen, other = np.arange(100), np.arange(100)
    other[3] = 7
    moved = np.arange(100)
    moved[5] = 8
    assert found(chosen, other, moved=moved) == []
    assert found(chosen, other[::-1], moved=moved) != []


def test_draws_are_compared_in_all_but_their_values() -> None:
    drawn = frozenset({"y"})
    assert found(X, X + 1, random=drawn) == []
    assert found(X, X[None], random=drawn) != [] and found(X, X.astype(np.float64), random=drawn) != []
