"""How far outputs may be from the golden ones: what counts as an error, whatever the dtype."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from wanc.runtime.golden import named, tensor_name
from wanc.runtime.selftest import relative_error

INFINITE = math.inf


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([math.inf, 4.5, -3.0], [math.inf, 4.0, -3.0], 0.1),
        ([math.inf, 1.0], [-math.inf, 1.0], INFINITE),
        ([math.inf, 1.0], [1.0, 1.0], INFINITE),
        ([math.nan, 1.0], [1.0, 1.0], INFINITE),
        ([math.nan, 1.0], [math.nan, 1.0], INFINITE),
        ([], [], 0.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_by_their_norm(actual: list[float], expected: list[float], error: float, dtype: str) -> None:
    found = relative_error(np.array(actual, dtype), np.array(expected, dtype))
    assert found == pytest.approx(error, rel=1e-6)


def test_float16_does_not_overflow_in_the_comparison() -> None:
    """A sum of squares of its largest values is far beyond what it can hold."""
    large = np.full(1000, 60000, np.float16)
    assert relative_error(large, large) == 0
    assert relative_error(np.full(1000, 30000, np.float16), large) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        (np.array([1, 2]), np.array([1, 2]), 0.0),
        (np.array([1, 2]), np.array([1, 3]), INFINITE),
        (np.array([True]), np.array([False]), INFINITE),
        (np.array([2**62]), np.array([2**62 + 1]), INFINITE),
        (np.zeros(2, np.float32), np.zeros(2, np.float16), INFINITE),
        (np.zeros(2), np.zeros((2, 1)), INFINITE),
    ],
    ids=lambda value: f"{value!r}",
)
def test_everything_else_exactly(actual: Any, expected: Any, error: float) -> None:
    assert relative_error(actual, expected) == error


NAMES = ["x", "x-3a", "a/b", "serving:0", "mask é", "-", "--", "世界", "%", "x.npy", "_"]


def test_golden_names_survive_whatever_they_are() -> None:
    tensors = {tensor_name("model", "main", name): np.array(index) for index, name in enumerate(NAMES)}
    assert len(tensors) == len(NAMES)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._/-") for name in tensors)
    assert {name: int(array) for name, array in named(tensors, "model", "main").items()} == {
        name: index for index, name in enumerate(NAMES)
    }
    assert named(tensors, "model", "mai") == {}
