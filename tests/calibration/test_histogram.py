"""Histograms of magnitudes: nothing is lost, and neither the order of the values nor their number matters."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from wanc.calibration.histogram import BINS, Histogram, NotFiniteError

FLOATS = st.floats(-(2.0**60), 2.0**60, width=32)
BATCHES = st.lists(arrays.arrays(np.float32, st.integers(0, 40), elements=FLOATS), max_size=5)


def histogram_of(*batches: NDArray) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


def assert_equal(one: Histogram, other: Histogram) -> None:
    assert (one.exponent, one.peak) == (other.exponent, other.peak)
    np.testing.assert_array_equal(one.counts, other.counts)


@given(BATCHES)
def test_every_value_is_counted_once(batches: list[NDArray]) -> None:
    histogram = histogram_of(*batches)
    values = np.abs(np.concatenate([np.empty(0, np.float32), *batches]))
    assert histogram.total == len(values)
    assert histogram.peak == (values.max() if len(values) else 0)
    assert histogram.peak < histogram.limit


@given(BATCHES)
def test_a_value_lies_in_its_bin(batches: list[NDArray]) -> None:
    histogram = histogram_of(*batches)
    width = histogram.limit / BINS
    values = np.abs(np.concatenate([np.empty(0, np.float32), *batches])).astype(np.float64)
    expected = np.bincount(np.floor(values / width).astype(int), minlength=BINS)
    np.testing.assert_array_equal(histogram.counts, expected)


@given(BATCHES, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(batches: list[NDArray], random: object) -> None:
    shuffled = list(batches)
    random.shuffle(shuffled)  # pyright: ignore[reportAttributeAccessIssue]
    assert_equal(histogram_of(*batches), histogram_of(*shuffled))
    assert_equal(histogram_of(*batches), histogram_of(np.concatenate([np.empty(0, np.float32), *batches])))


@given(BATCHES, BATCHES)
def test_two_histograms_are_one_of_both(one: list[NDArray], other: list[NDArray]) -> None:
    merged = histogram_of(*one)
    merged.merge(histogram_of(*other))
    assert_equal(merged, histogram_of(*one, *other))


@given(BATCHES)
def test_a_histogram_survives_a_file(batches: list[NDArray]) -> None:
    histogram = histogram_of(*batches)
    assert_equal(Histogram.from_arrays(histogram.as_arrays()), histogram)


@pytest.mark.parametrize("peak", [1.0, 0.75, 2.0**-3, 3e4, 1e-20])
def test_at_least_half_of_the_bins_are_used(peak: float) -> None:
    histogram = histogram_of(np.array([peak], np.float32))
    assert BINS // 2 <= np.flatnonzero(histogram.counts)[-1] < BINS
    assert math.log2(histogram.limit) == histogram.exponent


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_any_float_is_counted(dtype: type) -> None:
    assert_equal(histogram_of(np.array([[-3, 0.5], [0, 1]], dtype)), histogram_of(np.array([3, 0.5, 0, 1], np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_finite_has_no_range(value: float) -> None:
    """Beyond float32 as well; and nothing of it is counted."""
    histogram = histogram_of(np.array([2], np.float32))
    with pytest.raises(NotFiniteError), np.errstate(over="ignore"):
        histogram.add(np.array([1, value, 3]))
    assert_equal(histogram, histogram_of(np.array([2], np.float32)))


def test_memory_does_not_grow() -> None:
    histogram = histogram_of(*(np.full(10_000, 1.5**i, np.float32) for i in range(50)))
    assert histogram.counts.nbytes == BINS * 8
    assert histogram.total == 500_000
