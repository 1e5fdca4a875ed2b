"""Products whose sums have nothing to round: near the true ones, and the same in every order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wanc.calibration import exact
from wanc.calibration.exact import product


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def spread(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows of very different sizes, and within a row as well."""
    return noise(*shape, seed=seed) * np.exp2(np.random.default_rng(seed + 1).integers(-30, 30, shape)).astype("f4")


@given(st.integers(1, 300), st.integers(1, 2), st.integers(0, 1000))
def test_the_order_of_the_sum_does_not_matter(columns: int, slices: int, seed: int) -> None:
    """A product by BLAS of the same factors fails this: see below."""
    left, right = spread(3, columns, seed=seed), spread(5, columns, seed=seed + 7)
    order = np.random.default_rng(seed).permutation(columns)
    first = product(left, right, slices=slices)
    np.testing.assert_array_equal(first, product(left[:, order], right[:, order], slices=slices))
    np.testing.assert_array_equal(first.T, product(right, left, slices=slices))


def test_products_as_they_are_depend_on_it() -> None:
    left, right, order = noise(3, 300), noise(5, 300, seed=1), np.random.default_rng(2).permutation(300)
    assert (left @ right.T != left[:, order] @ right[:, order].T).any()


@pytest.mark.parametrize(("columns", "least"), [(128, 23), (2048, 21), (2049, 20), (32_768, 19)])
@pytest.mark.parametrize("slices", [1, 2])
def test_how_near_they_are(columns: int, least: int, slices: int) -> None:
    """Each of the products that are summed up is off by what its row's unit allows, and no more."""
    left, right = noise(4, columns).astype(np.float64), noise(6, columns, seed=1).astype(np.float64)
    largest = np.abs(left).max(axis=1, keepdims=True) * np.abs(right).max(axis=1)
    error = np.abs(product(left, right, slices=slices) - left @ right.T)
    assert (error <= largest * columns * (2.0 ** -(least * slices) + 2.0**-50)).all()


def test_what_fits_is_exact() -> None:
    left, right = (np.random.default_rng(seed).integers(-127, 128, (7, 500)) for seed in (0, 1))
    np.testing.assert_array_equal(product(left.astype(np.float32), right / 2.0**40), left @ right.T / 2.0**40)


def test_rows_of_zeros() -> None:
    left = np.zeros((2, 3), np.float32)
    left[1] = 1
    np.testing.assert_array_equal(product(left, left, slices=2), [[0, 0], [0, 3]])


@pytest.mark.parametrize("values", [1, 100, 257])
def test_pieces_of_the_right_side_change_nothing(monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    left, right = noise(4, 64), spread(33, 64)
    whole = product(left, right)
    monkeypatch.setattr(exact, "MOST_VALUES", values)
    np.testing.assert_array_equal(product(left, right), whole)
