"""Weights in fewer bits, such that a Linear's outputs change least: what rounding does to one column, the others mend.

GPTQ (Frantar et al., arXiv 2210.17323). Columns are rounded one by one, and what each is off by is made up for by those
that follow as the inputs' second moments say: columns that are large together can stand in for each other. In the form
of Chen et al. (arXiv 2507.18553) that takes a factor of the moments, and not of their inverse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wanc.calibration.exact import product
from wanc.calibration.weights import Codes, best_scales

# Share of the mean second moment that is added to all of them: inputs that never vary have none of their own.
DAMPING = 0.01
# Columns that are rounded one by one before what they are off by reaches all behind them, in one product.
BLOCK = 128
# Rows and columns of the largest pieces in which products are made: they bound what is held beside the moments.
ROWS, COLUMNS = 2048, 1024


@dataclass
class Moments:
    """The second moments Σ xᵀx of a Linear's inputs, float32 [in, in], of however many rows."""

    width: int
    total: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros((self.width, self.width), np.float32)

    def add(self, inputs: NDArray[np.float32]) -> None:
        """Count finite inputs, float [..., in]."""
        flat = inputs.reshape(-1, self.width)
        for first in range(0, len(flat), ROWS):
            channels = np.ascontiguousarray(flat[first : first + ROWS].T)
            for start in range(0, self.width, COLUMNS):
                end = min(start + COLUMNS, self.width)
                # From the diagonal on: what lies on its other side is the same.
                found = product(channels[start:end], channels[start:]).astype(np.float32)
                self.total[start:end, start:] += found
                self.total[end:, start:end] += found[:, end - start :].T


def round_by_moments(
    weights: NDArray[np.float32], moments: NDArray[np.float32], *, levels: int, group: int | None = None
) -> Codes:
    """Codes of a weight, float32 [out, in], for inputs with these second moments [in, in].

    Each group's scale is chosen when its first column is reached, from what the columns have become by then. Raises
    ValueError where the moments are not finite.
    """
    if not np.isfinite(moments).all():
        raise ValueError("second moments that are not finite")
    rows, columns = weights.shape
    width = min(group or columns, columns)
    shares = _shares(moments)
    wanted = weights.astype(np.float64)
    left = wanted.copy()
    codes = np.zeros((rows, columns), np.int8)
    scales = np.zeros((rows, -(-columns // width)), np.float32)
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        off = np.zeros((rows, end - start))
        for column in range(start, end):
            if column % width == 0:
                group_end = column + width
                made_up = left[:, column:group_end] - wanted[:, column:group_end]
                if group_end > end:
                    made_up[:, end - column :] += product(off, shares[start:end, end:group_end].T, slices=2)
                ahead = wanted[:, column:group_end] + _passed_on(made_up, shares[column:group_end, column:group_end])
                scales[:, column // width] = best_scales(ahead.astype(np.float32), levels)
            scale = scales[:, column // width].astype(np.float64)
            steps = np.divide(left[:, column], scale, out=np.zeros(rows), where=scale > 0)
            codes[:, column] = np.clip(np.rint(steps), -levels, levels)
            off[:, column - start] = wanted[:, column] - codes[:, column] * scale
            left[:, column + 1 : end] += np.outer(off[:, column - start], shares[column, column + 1 : end])
        if end < columns:
            left[:, end:] += product(off, shares[start:end, end:].T, slices=2)
    return Codes(codes, scales, width)


def _shares(moments: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much of what is wrong in column i each column j behind it makes up for: [i, j], above the diagonal.

    Where U is the upper triangular factor of the moments, UUᵀ, the error of a row e is the square of eU, and its
    column j, with what came before, is as small as it can be where w_j is off by -Σ e_i U_ij / U_jj, i < j.
    """
    size = len(moments)
    mean = float(np.trace(moments)) / size
    # With the order of rows and columns turned round it is the lower factor.
    factor = moments[::-1, ::-1].astype(np.float64)
    factor[np.diag_indices(size)] += DAMPING * mean if mean > 0 else 1.0
    _factorise(factor)
    upper = factor[::-1, ::-1]
    upper /= np.diagonal(upper).copy()
    return upper


def _passed_on(made_up: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """What columns [rows, width] make up for, when what one makes up for is made up for by those behind it in turn.

    So much they would change if they were not rounded; `shares` are those among them.
    """
    if not made_up.any():  # no column was rounded yet
        return made_up
    inverse = np.eye(len(shares))
    for column in range(1, len(shares)):
        inverse[:, column] -= (inverse[:, :column] * shares[:column, column]).sum(axis=1)
    return product(made_up, inverse.T, slices=2)


def _factorise(matrix: NDArray[np.float64]) -> None:
    """Put the lower Cholesky factor of a positive definite matrix into its lower triangle.

    Block by block: a block's own columns in turn, and then all behind it by products.
    """
    size = len(matrix)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        panel = np.ascontiguousarray(matrix[start:, start:end])
        for column in range(end - start):
            panel[column:, column] /= math.sqrt(panel[column, column])
            rest = slice(column + 1, end - start)
            panel[rest.start :, rest] -= np.outer(panel[rest.start :, column], panel[rest, column])
        matrix[start:, start:end] = panel
        for first in range(end, size, COLUMNS):
            behind = panel[first - start :]
            matrix[first:, first : first + COLUMNS] -= product(behind, behind[:COLUMNS], slices=2)
