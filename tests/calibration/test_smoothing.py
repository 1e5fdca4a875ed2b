"""Smoothing: nothing changes but where the reach lies, and INT8 gains where channels stick out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wanc.calibration.smoothing import ALPHAS, ChannelStatistics, best_alpha, channel_scales, expected_noise
from wanc.calibration.weights import round_to_nearest, sqnr_db

LEVELS = 127
WIDTH = 64


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def inputs_with_outliers(factor: float = 30, seed: int = 1) -> NDArray[np.float32]:
    """A few channels are always large, as after AdaLN."""
    inputs = noise(400, WIDTH, seed=seed)
    inputs[:, ::16] *= factor
    return inputs


def statistics_of(*batches: NDArray) -> ChannelStatistics:
    statistics = ChannelStatistics.of_width(batches[0].shape[-1])
    for batch in batches:
        statistics.add(batch)
    return statistics


WEIGHTS = [noise(48, WIDTH, seed=2), noise(48, WIDTH, seed=3) * 2, noise(16, WIDTH, seed=4)]


def quantised_db(inputs: NDArray, weights: Sequence[NDArray], scales: NDArray) -> float:
    """What really comes out of INT8 with one step for the input and one per row of a weight."""
    smoothed = (inputs / scales).astype(np.float32)
    step = np.abs(smoothed).max() / LEVELS
    rounded = np.clip(np.rint(smoothed / step), -LEVELS, LEVELS) * step
    outputs = [rounded @ round_to_nearest((w * scales).astype(np.float32), levels=LEVELS).weights().T for w in weights]
    expected = [inputs @ w.T for w in weights]
    return sqnr_db(np.concatenate(outputs, 1), np.concatenate(expected, 1))


@given(st.sampled_from(ALPHAS), st.floats(1, 100), st.integers(0, 5))
def test_products_stay_what_they_are(alpha: float, factor: float, seed: int) -> None:
    inputs = inputs_with_outliers(factor, seed)
    scales = channel_scales(statistics_of(inputs), WEIGHTS, alpha)
    assert (scales > 0).all() and np.mean(np.log(scales)) == pytest.approx(0, abs=1e-9)
    for weight in WEIGHTS:
        np.testing.assert_allclose((inputs / scales) @ (weight * scales).T, inputs @ weight.T, rtol=1e-3, atol=1e-3)


def test_the_ends_of_alpha() -> None:
    inputs = inputs_with_outliers()
    statistics = statistics_of(inputs)
    level_inputs = statistics.peaks / channel_scales(statistics, WEIGHTS, 1.0)
    np.testing.assert_allclose(level_inputs, level_inputs[0])
    columns = np.max([np.abs(weight).max(axis=0) for weight in WEIGHTS], axis=0)
    level_weights = columns * channel_scales(statistics, WEIGHTS, 0.0)
    np.testing.assert_allclose(level_weights, level_weights[0])


def test_int8_gains_where_channels_stick_out() -> None:
    inputs = inputs_with_outliers()
    statistics = statistics_of(inputs[:200])
    alpha = best_alpha(statistics, WEIGHTS)
    assert alpha is not None and 0.2 < alpha < 1
    unseen = inputs[200:]
    plain = quantised_db(unseen, WEIGHTS, np.ones(WIDTH))
    assert quantised_db(unseen, WEIGHTS, channel_scales(statistics, WEIGHTS, alpha)) > plain + 3


def test_the_chosen_alpha_is_nearly_the_best_there_is() -> None:
    """Measured by rounding, not by the expectation that chose it."""
    inputs = inputs_with_outliers()
    statistics = statistics_of(inputs)
    alpha = best_alpha(statistics, WEIGHTS)
    measured = {a: quantised_db(inputs, WEIGHTS, channel_scales(statistics, WEIGHTS, a)) for a in ALPHAS}
    assert alpha is not None
    assert measured[alpha] > max(measured.values()) - 0.7


@pytest.mark.parametrize("factor", [1, 30])
def test_the_expectation_is_what_rounding_costs(factor: float) -> None:
    inputs = inputs_with_outliers(factor)
    statistics, scales = statistics_of(inputs), np.ones(WIDTH)
    outputs = sum(float(np.square(inputs @ weight.T, dtype=np.float64).sum()) for weight in WEIGHTS) / len(inputs)
    expected = 10 * np.log10(outputs / expected_noise(statistics, WEIGHTS, scales))
    # The weights' scales clip a little where that is cheaper, which the expectation knows nothing of.
    assert quantised_db(inputs, WEIGHTS, scales) == pytest.approx(expected, abs=1)


def test_level_inputs_need_no_smoothing() -> None:
    sign = np.where(np.random.default_rng(0).integers(0, 2, (100, WIDTH)), 1, -1).astype(np.float32)
    weights = [np.where(np.random.default_rng(1).integers(0, 2, (8, WIDTH)), 1, -1).astype(np.float32)]
    assert best_alpha(statistics_of(sign), weights) is None


def test_channels_that_never_move_are_not_blown_up() -> None:
    inputs = inputs_with_outliers()
    inputs[:, 5] = 0
    weights = [weight.copy() for weight in WEIGHTS]
    for weight in weights:
        weight[:, 9] = 0
    for alpha in ALPHAS:
        scales = channel_scales(statistics_of(inputs), weights, alpha)
        assert np.isfinite(scales).all() and (scales > 0).all()
    zeros = channel_scales(statistics_of(np.zeros((3, WIDTH), np.float32)), weights, 0.5)
    assert np.isfinite(zeros).all()


def test_statistics_do_not_depend_on_the_batches() -> None:
    inputs = inputs_with_outliers()
    whole, parts = statistics_of(inputs), statistics_of(*np.split(inputs.reshape(20, 20, WIDTH), 5))
    np.testing.assert_array_equal(whole.peaks, parts.peaks)
    np.testing.assert_allclose(whole.squares, parts.squares)
    assert whole.rows == parts.rows == 400
