"""Errors, and how sure they are: relative errors of arrays, means over clips with their bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wanc.errors import TargetError
from wanc.report.document import Estimate

Array = np.ndarray[Any, Any]
IDENTICAL_DB = 200.0
"""In place of infinity: more than float32 can tell apart."""
LARGEST_ERROR = 1e9
"""In place of infinity, where all that is expected is zero: JSON has none."""
DRAWS = 2_000
"""Of clips, with replacement: enough for bounds of 95 % to two digits."""


def relative_error(found: Array, expected: Array) -> float:
    """‖found − expected‖ / ‖expected‖ over all values, at most `LARGEST_ERROR`.

    Raises TargetError for values that are not finite.
    """
    error = float(np.linalg.norm((found.astype(np.float64) - expected).ravel()))
    size = float(np.linalg.norm(expected.astype(np.float64).ravel()))
    if not math.isfinite(error):
        raise TargetError("a bundle gives values that are not finite at a state of the reference")
    return min(error / size, LARGEST_ERROR) if size else (LARGEST_ERROR if error else 0.0)


def sqnr_db(found: Array, expected: Array) -> float:
    """Signal to error in decibels, at most `IDENTICAL_DB`."""
    error = relative_error(found, expected)
    return IDENTICAL_DB if error == 0 else max(-IDENTICAL_DB, min(IDENTICAL_DB, -20 * math.log10(error)))


def cosine(found: Array, expected: Array) -> float:
    """Of two arrays as vectors; 0 where one of them has no direction."""
    one, other = found.ravel().astype(np.float64), expected.ravel().astype(np.float64)
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if math.isfinite(length) and length > 0 else 0.0


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of one value a clip, and its bounds of 95 % by the bootstrap percentile method (Efron, 1979)."""
    array = np.asarray(values, np.float64)
    chosen = np.random.default_rng(seed).integers(len(array), size=(DRAWS, len(array)))
    low, high = np.percentile(array[chosen].mean(axis=1), [2.5, 97.5])
    return Estimate(mean=float(array.mean()), low=float(low), high=float(high), count=len(array))


def median_with_bounds(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """The median, and its bounds of 95 %, by the same method."""
    array = np.asarray(values, np.float64)
    chosen = np.random.default_rng(seed).integers(len(array), size=(DRAWS, len(array)))
    low, high = np.percentile(np.median(array[chosen], axis=1), [2.5, 97.5])
    return float(np.median(array)), float(low), float(high)
