"""Products of matrices that come out the same whatever library multiplies them, on however many threads.

A sum of floats depends on its order, and every kernel of a BLAS has an order of its own. So factors are rounded first:
each row to whole numbers of a unit of its own, a power of two, with so few bits that no sum of their products in
float64 has anything to round. Then every order gives the same. What a value loses goes into further slices, if it is
asked for: each has as many bits again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Exact = NDArray[np.float64]

MANTISSA_BITS = 53
MOST_VALUES = 2**22
"""Of the right side in float64 at a time: 32 MiB, whatever the size of a weight."""


def product(left: NDArray[Any], right: NDArray[Any], *, slices: int = 1) -> Exact:
    """left [m, k] · right [n, k]ᵀ, both finite floats: float64 [m, n].

    A value of a row is taken to some 2**-b of the largest in it, where b is 23 bits for each slice at k = 128, 21 at
    2048 and 19 at 32,768.
    """
    columns = left.shape[1]
    bits = (MANTISSA_BITS - (columns - 1).bit_length()) // 2
    lefts, result = _sliced(left, bits, slices), np.empty((len(left), len(right)))
    step = max(1, MOST_VALUES // max(1, columns))
    for first in range(0, len(right), step):
        rows = slice(first, first + step)
        result[:, rows] = _added(lefts, _sliced(right[rows], bits, slices))
    return result


Slices = list[tuple[Exact, Exact]]
"""Whole numbers, and the unit of each row [rows, 1]; every slice is what the one before has left."""


def _sliced(values: NDArray[Any], bits: int, slices: int) -> Slices:
    left, found = values, Slices()
    for _ in range(slices):
        if found:
            whole, units = found[-1]
            left = left - whole * units
        lowest, highest = (bound(axis=1, keepdims=True, initial=0) for bound in (left.min, left.max))
        _, exponents = np.frexp(np.maximum(-lowest, highest).astype(np.float64))
        whole = np.multiply(left, np.ldexp(1.0, bits - exponents), dtype=np.float64)
        found.append((np.rint(whole, out=whole), np.ldexp(1.0, exponents - bits)))
    return found


def _added(lefts: Slices, rights: Slices) -> Exact:
    """The products of slices, the smallest first; those that are left out are smaller than what no slice holds."""
    result: Exact | None = None
    for total in reversed(range(len(lefts))):
        for index in range(total + 1):
            (ours, our_units), (theirs, their_units) = lefts[index], rights[total - index]
            part = ours @ theirs.T
            part *= our_units
            part *= their_units.T
            result = part if result is None else result + part
    assert result is not None
    return result
