"""How far a quantised range is to reach: the magnitude that becomes the largest code; what lies above is clipped.

Four ways to choose it from a histogram of magnitudes. `absmax` clips nothing; `percentile` clips the rarest; `mse`
weighs rounding below against clipping above by the squared error that both cost; `entropy` keeps the distribution of
codes close to that of the values (Kullback–Leibler divergence; Migacz, "8-bit inference with TensorRT", GTC 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from wanc.calibration.histogram import BINS, Histogram
from wanc.words import Observer

PERCENTILE = 99.99
# How many thresholds are tried: steps of half a percent of the peak, which moves an error by less than that.
CANDIDATES = 200
# Of a divergence, behind the point: the last places of logarithms differ between processors.
DIGITS = 9


def threshold(histogram: Histogram, observer: Observer, *, levels: int = 127) -> float:
    """The magnitude of the largest code, for codes -levels..levels; 0 where all that was seen is 0."""
    if histogram.peak == 0.0:
        return 0.0
    return min(_BY_OBSERVER[observer](histogram, levels), histogram.peak)


def squared_errors(histogram: Histogram, thresholds: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """The mean squared error of rounding and clipping at each of these thresholds, [len(thresholds)]."""
    centres, counts = histogram.centres, histogram.counts
    used = counts > 0
    centres, counts = centres[used], counts[used]
    steps = thresholds[:, None] / levels
    codes = np.minimum(np.rint(centres / steps), levels)
    errors = (codes * steps - centres) ** 2
    # Not a product of matrices: a BLAS sums in an order of its own.
    return (errors * counts).sum(axis=1) / counts.sum()


def _absmax(histogram: Histogram, _levels: int) -> float:
    return histogram.peak


def _percentile(histogram: Histogram, _levels: int) -> float:
    """The end of the first bin at or below which that share of all values lies."""
    cumulative = np.cumsum(histogram.counts)
    index = int(np.searchsorted(cumulative, cumulative[-1] * (PERCENTILE / 100)))
    return (index + 1) * histogram.limit / BINS


def _mse(histogram: Histogram, levels: int) -> float:
    candidates = histogram.peak * np.arange(1, CANDIDATES + 1) / CANDIDATES
    return float(candidates[np.argmin(squared_errors(histogram, candidates, levels))])


def _entropy(histogram: Histogram, levels: int) -> float:
    used = int(np.flatnonzero(histogram.counts)[-1]) + 1
    ends = np.unique(np.linspace(min(levels + 1, used), used, CANDIDATES).astype(int))
    divergences = [_divergence(histogram.counts, int(end), levels + 1) for end in ends]
    return float(ends[divergences.index(min(divergences))]) * histogram.limit / BINS


def _divergence(counts: NDArray[np.int64], end: int, codes: int) -> float:
    """Of the values clipped to `end` bins from what is left of them when each code stands for its bins' mean."""
    clipped = counts[:end].astype(np.float64)
    code = np.arange(end) * codes // end
    occupied = clipped > 0
    sums = np.bincount(code, clipped, codes)
    bins = np.bincount(code, occupied, codes)
    expanded = np.where(occupied, sums[code] / np.maximum(bins[code], 1), 0.0)
    clipped[-1] += counts[end:].sum()
    seen = (clipped > 0) & (expanded > 0)
    # What was clipped may fall into a bin that had nothing: no code stands for it, and it costs all of its share.
    lost = clipped[~seen].sum()
    p, q = clipped / clipped.sum(), expanded / max(expanded.sum(), 1.0)
    divergence = float(np.sum(p[seen] * np.log(p[seen] / q[seen])) + lost / clipped.sum() * math.log(1e12))
    return round(divergence, DIGITS)


_BY_OBSERVER: Mapping[Observer, Callable[[Histogram, int], float]] = {
    "absmax": _absmax,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
