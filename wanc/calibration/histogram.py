"""What is remembered of an activation: how often each magnitude occurs, in a fixed number of bins.

The range is a power of two. So widening it adds whole bins together, any two histograms can be added, and the result
is the same whatever the order in which the values came: memory does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 4096
# Magnitudes far below this are all in the first bin. The scale to bins has to be a float32 itself.
SMALLEST_EXPONENT = -100


class NotFiniteError(ValueError):
    """Values that are not finite: they have no range."""


@dataclass
class Histogram:
    """Counts of magnitudes |x|: bin i holds those in [i, i + 1) · 2**exponent / BINS.

    `peak` is the largest magnitude, exactly. The last bin in use lies in the upper half.
    """

    exponent: int = SMALLEST_EXPONENT
    peak: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @property
    def limit(self) -> float:
        """The end of the last bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """How many values were seen."""
        return int(self.counts.sum())

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of every bin, [BINS]."""
        return (np.arange(BINS, dtype=np.float64) + 0.5) * (self.limit / BINS)

    def add(self, values: NDArray[Any]) -> None:
        """Count float values of any shape. Raises NotFiniteError, and then nothing is counted."""
        if not values.size:
            return
        magnitudes = np.abs(values.reshape(-1).astype(np.float32, copy=False))
        peak = float(magnitudes.max())  # a NaN anywhere makes it NaN
        if not math.isfinite(peak):
            raise NotFiniteError("a value is not finite")
        self._widen(_exponent(peak))
        self.peak = max(self.peak, peak)
        # A power of two: the product is exact, so that a value's bin does not depend on what else was seen.
        index = (magnitudes * np.float32(BINS / self.limit)).astype(np.int64)
        self.counts += np.bincount(index, minlength=BINS)

    def merge(self, other: Histogram) -> None:
        """Count what another histogram has counted."""
        self._widen(other.exponent)
        self.peak = max(self.peak, other.peak)
        self.counts += _widened(other.counts, self.exponent - other.exponent)

    def as_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, for a file."""
        return {"counts": self.counts, "exponent": np.array(self.exponent, np.int64), "peak": np.array(self.peak)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Histogram:
        """What `as_arrays` gave."""
        return cls(int(arrays["exponent"]), float(arrays["peak"]), arrays["counts"].astype(np.int64))

    def _widen(self, exponent: int) -> None:
        if exponent > self.exponent:
            self.counts = _widened(self.counts, exponent - self.exponent)
            self.exponent = exponent


def _exponent(peak: float) -> int:
    """The exponent of the smallest power of two above a magnitude."""
    return max(math.frexp(peak)[1], SMALLEST_EXPONENT) if peak else SMALLEST_EXPONENT


def _widened(counts: NDArray[np.int64], doublings: int) -> NDArray[np.int64]:
    """The same counts in bins 2**doublings times as wide."""
    if doublings == 0:
        return counts
    wide = np.zeros(BINS, np.int64)
    together = 2 ** min(doublings, int(math.log2(BINS)))
    merged = counts.reshape(-1, together).sum(axis=1)
    wide[: len(merged)] = merged
    return wide
