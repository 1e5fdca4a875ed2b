"""Weights in fewer bits, such that a Linear's outputs change least: what rounding does to one column, the others mend.

GPTQ (Frantar et al., arXiv 2210.17323). Columns are rounded one by one, and what each is off by is spread over those
that follow as the inputs' second moments say: columns that are large together can stand in for each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wanc.calibration.weights import Codes, best_scales

# Share of the mean second moment that is added to all of them: inputs that never vary have none of their own.
DAMPING = 0.01


# Columns that are rounded one by one before what they are off by reaches all behind them, in one product.
BLOCK = 128


@dataclass
class Moments:
    """The second moments Σ xᵀx of a Linear's inputs, float32 [in, in], of however many rows."""

    width: int
    total: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros((self.width, self.width), np.float32)

    def add(self, inputs: NDArray[np.float32]) -> None:
        """Count inputs, float [..., in]."""
        flat = inputs.reshape(-1, self.width)
        self.total += flat.T @ flat


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
    upper = _spread(moments)
    left = weights.astype(np.float64)
    codes = np.zeros((rows, columns), np.int8)
    scales = np.zeros((rows, -(-columns // width)), np.float32)
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        off = np.zeros((rows, end - start))
        for column in range(start, end):
            if column % width == 0:
                ahead = left[:, column : column + width].copy()
                ahead[:, end - column :] -= off @ upper[start:end, end : column + width]
                scales[:, column // width] = best_scales(ahead.astype(np.float32), levels)
            scale = scales[:, column // width].astype(np.float64)
            steps = np.divide(left[:, column], scale, out=np.zeros(rows), where=scale > 0)
            codes[:, column] = np.clip(np.rint(steps), -levels, levels)
            off[:, column - start] = (left[:, column] - codes[:, column] * scale) / upper[column, column]
            left[:, column:end] -= np.outer(off[:, column - start], upper[column, column:end])
        left[:, end:] -= off @ upper[start:end, end:]
    return Codes(codes, scales, width)


def _spread(moments: NDArray[np.float32]) -> NDArray[np.float64]:
    """The upper Cholesky factor of the inverse: row i says how what is wrong in column i goes to those behind it.

    With the order of rows and columns turned round it is the inverse of the moments' own lower factor, so that the
    moments need not be inverted.
    """
    size = len(moments)
    mean = float(np.trace(moments)) / size
    damped = moments[::-1, ::-1].astype(np.float64)
    damped[np.diag_indices(size)] += DAMPING * mean if mean > 0 else 1.0
    lower = np.linalg.cholesky(damped)
    del damped  # each of these takes 640 MB for the widest Linear of the 1.3B model
    return np.asarray(np.linalg.inv(lower)[::-1, ::-1], np.float64)
