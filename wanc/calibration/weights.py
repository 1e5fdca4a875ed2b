"""Weights in fewer bits: symmetric codes -levels..levels, with one scale for a row's every group of columns.

int8 has one group, the whole row; int4 has groups of 128 columns. Rows are what a Linear gives, [out, in]. Codes of fp8
are numbers of the format E4M3 (Micikevicius et al., arXiv 2209.05433), with one scale for a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

LEVELS = {"int8": 127, "int4": 7}
GROUP = {"int8": None, "int4": 128}
FP8 = np.dtype(ml_dtypes.float8_e4m3fn)
LARGEST_FP8 = 448.0
# Scales tried for a group, as shares of the one that clips nothing: below the first, clipping costs more than it gains.
SHARES = np.linspace(0.6, 1.0, 21, dtype=np.float32)
AT_ONCE = 2**18
"""Values that are tried at a time: few enough for a processor's cache, where it takes a fifth of the time."""


@dataclass(frozen=True)
class Codes:
    """`values` int8, or float8_e4m3fn, [out, in] and `scales` float32 [out, groups]: a weight is code times scale.

    `group` is how many columns share a scale; in the last group there may be fewer.
    """

    values: NDArray[Any]
    scales: NDArray[np.float32]
    group: int

    def weights(self) -> NDArray[np.float32]:
        """What the codes stand for, float32 [out, in]."""
        scales = np.repeat(self.scales, self.group, axis=1)[:, : self.values.shape[1]]
        return self.values.astype(np.float32) * scales


def round_to_nearest(weights: NDArray[np.float32], *, levels: int, group: int | None = None) -> Codes:
    """Every weight's nearest code, at the scale of each group that makes the squared error smallest.

    `weights` is float32 [out, in] and finite. Zeros alone have the scale 0 and the code 0.
    """
    width = min(group or weights.shape[1], weights.shape[1])
    groups = _grouped(weights, width)
    scales = best_scales(groups, levels)
    codes = _rounded(groups, scales[..., None], levels).reshape(len(weights), -1)[:, : weights.shape[1]]
    return Codes(np.ascontiguousarray(codes), scales, width)


def round_to_fp8(weights: NDArray[np.float32]) -> Codes:
    """The nearest numbers of the format, at the scale of each row that makes its largest weight the largest number."""
    scales = np.abs(weights).max(axis=1, keepdims=True) / np.float32(LARGEST_FP8)
    steps = np.divide(weights, scales, out=np.zeros_like(weights), where=scales > 0)
    return Codes(np.clip(steps, -LARGEST_FP8, LARGEST_FP8).astype(FP8), scales, weights.shape[1])


def best_scales(groups: NDArray[np.float32], levels: int) -> NDArray[np.float32]:
    """The scale of each group, [rows, ..., columns] → [rows, ...], at which rounding and clipping cost the least."""
    rows = max(1, AT_ONCE * len(groups) // max(1, groups.size))
    starts = range(0, max(1, len(groups)), rows)
    return np.concatenate([_best_scales(groups[start : start + rows], levels) for start in starts])


def _best_scales(groups: NDArray[np.float32], levels: int) -> NDArray[np.float32]:
    largest = np.abs(groups).max(axis=-1) / np.float32(levels)
    best, least = largest, np.full(largest.shape, np.inf, np.float32)
    for share in SHARES:
        scales = largest * share
        restored = _rounded(groups, scales[..., None], levels) * scales[..., None]
        errors = np.square(restored - groups).sum(axis=-1)
        better = errors <= least
        best, least = np.where(better, scales, best), np.where(better, errors, least)
    return best


def sqnr_db(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """The power of a signal over that of what is wrong with it, in dB to two places; infinite where nothing is."""
    noise = float(np.square(actual - expected, dtype=np.float64).sum())
    signal = float(np.square(expected, dtype=np.float64).sum())
    if noise == 0.0:
        return float("inf")
    return round(10 * math.log10(signal / noise), 2) if signal else float("-inf")


def _grouped(weights: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """[out, in] → [out, groups, width]; what the last group lacks is filled with zeros, which cost nothing."""
    rows, columns = weights.shape
    return np.pad(weights, ((0, 0), (0, -columns % width))).reshape(rows, -1, width)


def _rounded(values: NDArray[np.float32], scales: NDArray[np.float32], levels: int) -> NDArray[np.int8]:
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.where(scales > 0, values / scales, 0)
    return np.clip(np.rint(codes), -levels, levels).astype(np.int8)
