"""Weights in fewer bits: codes in range, the smallest error, and GPTQ's gain where inputs are correlated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from wanc.calibration.gptq import BLOCK, DAMPING, Moments, round_by_moments
from wanc.calibration.weights import GROUP, LEVELS, Codes, best_scales, round_to_nearest, sqnr_db

WEIGHTS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 20)),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_valid(codes: Codes, weights: NDArray, levels: int, group: int | None) -> None:
    rows, columns = weights.shape
    assert (codes.values.dtype, codes.values.shape) == (np.int8, (rows, columns))
    groups = -(-columns // min(group or columns, columns))
    assert (codes.scales.dtype, codes.scales.shape) == (np.float32, (rows, groups))
    assert np.abs(codes.values.astype(int)).max() <= levels
    assert (codes.scales >= 0).all() and np.isfinite(codes.scales).all()


@given(WEIGHTS, st.sampled_from([7, 127]), st.sampled_from([None, 1, 4, 64]))
def test_no_weight_is_off_by_more_than_clipping_allows(weights: NDArray, levels: int, group: int | None) -> None:
    codes = round_to_nearest(weights, levels=levels, group=group)
    assert_valid(codes, weights, levels, group)
    # A scale is at least 0.6 of the one that clips nothing: so much of the largest weight is left.
    assert (np.abs(codes.weights() - weights) <= 0.41 * np.abs(weights).max(axis=1, keepdims=True) + 1e-30).all()


@given(WEIGHTS, st.sampled_from([7, 127]))
def test_searching_is_never_worse_than_clipping_nothing(weights: NDArray, levels: int) -> None:
    largest = np.abs(weights).max(axis=1, keepdims=True)
    step = np.where(largest > 0, largest / levels, 1)
    plain = np.clip(np.rint(weights / step), -levels, levels) * step
    found = round_to_nearest(weights, levels=levels).weights()
    ours, theirs = (np.square(entry.astype(np.float64) - weights).sum(axis=1) for entry in (found, plain))
    assert (ours <= theirs * (1 + 1e-4) + 1e-9).all()


def test_what_fits_is_exact() -> None:
    """Multiples of a scale that a float can hold."""
    weights = np.array([[127, -64, 3, 0], [-0.5, 1, 63.5, 10]], np.float32) / np.float32(128)
    np.testing.assert_array_equal(round_to_nearest(weights, levels=127).weights(), weights)


@pytest.mark.parametrize("group", [None, 2])
def test_zeros_are_zeros(group: int | None) -> None:
    weights = np.zeros((2, 5), np.float32)
    moments = np.eye(5)
    for codes in (
        round_to_nearest(weights, levels=7, group=group),
        round_by_moments(weights, moments, levels=7, group=group),
    ):
        assert_valid(codes, weights, 7, group)
        assert not codes.weights().any()


def test_groups_hold_their_own_scale() -> None:
    """An outlier spoils its group alone."""
    weights = noise(8, 256)
    weights[:, 3] = 50
    codes = round_to_nearest(weights, levels=LEVELS["int4"], group=GROUP["int4"])
    restored = codes.weights()
    assert sqnr_db(restored[:, 128:], weights[:, 128:]) > 18
    assert sqnr_db(restored[:, :3], weights[:, :3]) < 5


@pytest.mark.parametrize(("scheme", "least"), [("int8", 39), ("int4", 19)])
def test_noise_keeps_the_accuracy_that_its_bits_allow(scheme: str, least: float) -> None:
    weights = noise(64, 512)
    codes = round_to_nearest(weights, levels=LEVELS[scheme], group=GROUP[scheme])
    assert sqnr_db(codes.weights(), weights) > least


def test_sqnr() -> None:
    one = np.ones(10, np.float32)
    assert sqnr_db(one, one) == float("inf")
    assert sqnr_db(one * np.float32(1.1), one) == pytest.approx(20, abs=1e-4)
    assert sqnr_db(one, np.zeros(10, np.float32)) == float("-inf")


# GPTQ


def correlated(rows: int, width: int, rank: int) -> NDArray[np.float32]:
    """Inputs that mostly lie in a few directions, as activations do."""
    return noise(rows, rank, seed=1) @ noise(rank, width, seed=2) + 0.1 * noise(rows, width, seed=3)


def output_db(codes: Codes, weights: NDArray, inputs: NDArray) -> float:
    return sqnr_db(inputs @ codes.weights().T, inputs @ weights.T)


@pytest.mark.parametrize(("scheme", "gain"), [("int4", 3), ("int8", 3)])
def test_outputs_are_nearer_than_by_rounding_alone(scheme: str, gain: float) -> None:
    """Also on inputs of the same kind that it has not seen."""
    weights, inputs = noise(48, 256), correlated(2000, 256, 24)
    seen, unseen = inputs[:1500], inputs[1500:]
    moments = Moments(256)
    for batch in np.split(seen, 5):
        moments.add(batch)
    options = {"levels": LEVELS[scheme], "group": GROUP[scheme]}
    nearest = round_to_nearest(weights, **options)
    mended = round_by_moments(weights, moments.total, **options)
    assert_valid(mended, weights, options["levels"], options["group"])
    assert output_db(mended, weights, unseen) > output_db(nearest, weights, unseen) + gain


def test_uncorrelated_inputs_leave_nothing_to_mend() -> None:
    weights = noise(6, 40)
    codes = round_by_moments(weights, np.eye(40) * 7, levels=127)
    np.testing.assert_array_equal(codes.values, round_to_nearest(weights, levels=127).values)


def test_columns_whose_inputs_are_always_zero_do_no_harm() -> None:
    weights, inputs = noise(6, 40), correlated(300, 40, 4)
    inputs[:, 7] = 0
    moments = Moments(40)
    moments.add(inputs)
    codes = round_by_moments(weights, moments.total, levels=7, group=8)
    assert np.isfinite(codes.weights()).all()
    assert output_db(codes, weights, inputs) > 15


def test_moments_do_not_depend_on_the_batches() -> None:
    inputs = correlated(60, 8, 3)
    whole, parts = Moments(8), Moments(8)
    whole.add(inputs)
    for batch in np.split(inputs, 6):
        parts.add(batch.reshape(2, 5, 8))
    np.testing.assert_allclose(parts.total, whole.total, rtol=1e-5)


def test_moments_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        round_by_moments(noise(2, 3), np.full((3, 3), np.nan), levels=7)


def textbook(weights: NDArray, moments: NDArray, levels: int, group: int | None) -> Codes:
    """GPTQ with neither blocks nor factors of its own: column by column, all that follow mended at once."""
    rows, columns = weights.shape
    width = min(group or columns, columns)
    damped = moments.astype(np.float64) + np.eye(columns) * DAMPING * np.trace(moments) / columns
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, codes = weights.astype(np.float64), np.zeros((rows, columns))
    scales = np.zeros((rows, -(-columns // width)), np.float32)
    for column in range(columns):
        if column % width == 0:
            scales[:, column // width] = best_scales(left[:, column : column + width].astype(np.float32), levels)
        scale = scales[:, column // width].astype(np.float64)
        codes[:, column] = np.clip(np.rint(left[:, column] / scale), -levels, levels)
        error = (left[:, column] - codes[:, column] * scale) / upper[column, column]
        left[:, column:] -= np.outer(error, upper[column, column:])
    return Codes(codes.astype(np.int8), scales, width)


@pytest.mark.parametrize("columns", [5, BLOCK, BLOCK + 1, 2 * BLOCK + 44])
@pytest.mark.parametrize("group", [None, 1, 48, BLOCK, 200])
def test_blocks_change_nothing(columns: int, group: int | None) -> None:
    """Groups that end within a block, with it, and in a later one. Sums are float64: no code is that near to a tie."""
    weights, inputs = noise(7, columns), correlated(3 * columns, columns, 4)
    moments = Moments(columns)
    moments.add(inputs)
    found = round_by_moments(weights, moments.total, levels=7, group=group)
    expected = textbook(weights, moments.total, 7, group)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_allclose(found.scales, expected.scales, rtol=1e-6)
