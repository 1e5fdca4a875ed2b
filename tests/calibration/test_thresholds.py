"""Where a range ends: each way of choosing does what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from wanc.calibration.histogram import BINS, Histogram
from wanc.calibration.thresholds import squared_errors, threshold
from wanc.words import OBSERVERS, Observer

LEVELS = 127


def histogram_of(values: NDArray) -> Histogram:
    histogram = Histogram()
    histogram.add(values)
    return histogram


def noise(count: int = 200_000, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def with_outliers(factor: float = 100) -> NDArray[np.float32]:
    """One value in twenty thousand is far away from all others."""
    values = noise()
    values[::20_000] = factor
    return values


def error_of(values: NDArray, reach: float, levels: int = LEVELS) -> float:
    """The mean squared error of the values themselves."""
    step = reach / levels
    return float(np.mean((np.clip(np.rint(values / step), -levels, levels) * step - values.astype(np.float64)) ** 2))


@given(
    arrays.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32)),
    st.sampled_from(OBSERVERS),
)
def test_a_threshold_is_a_magnitude_that_occurs_or_less(values: NDArray, observer: Observer) -> None:
    reach = threshold(histogram_of(values), observer)
    assert 0 <= reach <= np.abs(values).max()
    assert (reach == 0) == (not values.any())


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("factor", [2.0**-20, 2.0**9])
def test_a_threshold_scales_with_the_values(observer: Observer, factor: float) -> None:
    reach = threshold(histogram_of(noise()), observer)
    assert threshold(histogram_of(noise() * np.float32(factor)), observer) == pytest.approx(factor * reach, rel=1e-6)


def test_absmax_clips_nothing() -> None:
    assert threshold(histogram_of(with_outliers()), "absmax") == 100


def test_percentile_clips_the_rarest() -> None:
    values = np.abs(with_outliers())
    reach = threshold(histogram_of(values), "percentile")
    assert np.mean(values > reach) <= 1e-4
    assert reach == pytest.approx(np.quantile(values, 0.9999), abs=128 / BINS)


@pytest.mark.parametrize("values", [noise(), with_outliers(), with_outliers(10), np.abs(noise()) ** 3])
@pytest.mark.parametrize("levels", [7, 127])
def test_mse_is_better_than_any_other_choice(values: NDArray, levels: int) -> None:
    """Tried on the values themselves, not on their histogram."""
    values = values.astype(np.float32)
    reach = threshold(histogram_of(values), "mse", levels=levels)
    others = np.abs(values).max() * np.linspace(0.01, 1, 60)
    # A candidate is at most half a percent of the peak off.
    assert error_of(values, reach, levels) <= 1.01 * min(error_of(values, other, levels) for other in others)


@pytest.mark.parametrize("reach", [0.5, 2, 4])
def test_errors_of_a_histogram_are_those_of_its_values(reach: float) -> None:
    values = noise()
    estimated = squared_errors(histogram_of(values), np.array([reach]), LEVELS)
    assert estimated == pytest.approx([error_of(values, reach)], rel=0.05)


def test_entropy_clips_outliers_and_little_else() -> None:
    clean, spoilt = (threshold(histogram_of(values), "entropy") for values in (noise(), with_outliers()))
    assert 3 < clean <= np.abs(noise()).max()
    assert spoilt < 15


def test_what_is_constant_is_kept_whole() -> None:
    for observer in OBSERVERS:
        assert threshold(histogram_of(np.full(1000, 0.3, np.float32)), observer) == pytest.approx(0.3, rel=1e-3)
