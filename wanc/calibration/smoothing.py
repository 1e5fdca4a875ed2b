"""Smoothing: what makes some channels of an activation large goes into the weights, which have scales to spare.

SmoothQuant (Xiao et al., arXiv 2211.10438): channel j of the input is divided by s_j = max|x_j|^α / max|w_j|^(1−α), and
column j of every weight is multiplied by it. One s serves all Linears of one input, q, k and v for example, so that
they can still be merged. α is chosen by the noise that rounding is expected to cost at the outputs, which takes no
samples: the channels' peaks and mean squares are enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALPHAS = tuple(round(0.05 * step, 2) for step in range(21))
# Peaks below this share of the largest are taken for it: a channel that never moves must not be blown up.
SMALLEST_PEAK = 1e-5


@dataclass
class ChannelStatistics:
    """Of an activation [..., channels]: each channel's largest magnitude and sum of squares, and the rows seen."""

    peaks: NDArray[np.float64]
    squares: NDArray[np.float64]
    rows: int = 0

    @classmethod
    def of_width(cls, channels: int) -> ChannelStatistics:
        return cls(np.zeros(channels), np.zeros(channels))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values, float [..., channels]."""
        flat = values.reshape(-1, len(self.peaks)).astype(np.float64)
        if len(flat):
            self.peaks = np.maximum(self.peaks, np.abs(flat).max(axis=0))
            self.squares += np.square(flat).sum(axis=0)
            self.rows += len(flat)


def channel_scales(
    statistics: ChannelStatistics, weights: Iterable[NDArray[np.float32]], alpha: float
) -> NDArray[np.float64]:
    """s, float64 [in], with a geometric mean of 1; `weights` [out, in] are all that multiply the activation.

    An α of 0 leaves the weights' columns equally large, 1 the activation's channels.
    """
    columns = np.max([np.abs(weight).max(axis=0) for weight in weights], axis=0).astype(np.float64)
    logs = alpha * _each(math.log, _raised(statistics.peaks)) - (1 - alpha) * _each(math.log, _raised(columns))
    return _each(math.exp, logs - math.fsum(logs) / len(logs))


def best_alpha(
    statistics: ChannelStatistics, weights: Iterable[NDArray[np.float32]], *, levels: int = 127
) -> float | None:
    """The α at which the least noise is expected; None where none is better than no smoothing at all.

    `weights` are gone through several times.
    """
    plain = expected_noise(statistics, weights, np.ones(len(statistics.peaks)), levels=levels)
    noises = {
        alpha: expected_noise(statistics, weights, channel_scales(statistics, weights, alpha), levels=levels)
        for alpha in ALPHAS
    }
    best = min(noises, key=lambda alpha: noises[alpha])
    return best if noises[best] < plain else None


def expected_noise(
    statistics: ChannelStatistics,
    weights: Iterable[NDArray[np.float32]],
    scales: NDArray[np.float64],
    *,
    levels: int = 127,
) -> float:
    """The mean squared error at the outputs, summed over them, when input and weights are rounded after smoothing.

    Rounding is uniform noise of a step²/12 per element, independent of everything: the activation has one step, each
    row of a weight its own.
    """
    step = float((statistics.peaks / scales).max()) / levels
    mean_squares = statistics.squares / max(statistics.rows, 1) / scales**2
    noise = 0.0
    for weight in weights:
        smoothed = weight * scales
        steps = np.abs(smoothed).max(axis=1) / levels
        noise += step**2 / 12 * float(np.square(smoothed).sum())
        noise += float(np.square(steps).sum()) / 12 * float(mean_squares.sum())
    return noise


def _each(function: Callable[[float], float], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A function of every value. numpy's own differ in the last place, by which instructions it finds and may use."""
    return np.array([function(value) for value in values.tolist()], np.float64)


def _raised(peaks: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = float(peaks.max())
    return np.maximum(peaks, largest * SMALLEST_PEAK) if largest else np.ones(len(peaks))
