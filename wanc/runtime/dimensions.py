"""How sizes and number formats of arrays are written, from a recipe to a bundle's manifest.

A size is a number, or a name for what a request may choose: `rows`, or `2*rows` for a multiple of it.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

LARGEST_SIZE = 2**31 - 1
"""Of one dimension: what ONNX's tools take."""
MOST_DIMENSIONS = 8
NAMED = re.compile(r"(?:[1-9][0-9]{0,8}\*)?[A-Za-z_][A-Za-z0-9_]{0,254}")
"""How a size that is not fixed is written."""

Dimension: TypeAlias = int | str
Dtype = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"
]
"""numpy's names: what an interface can carry without PyTorch."""


def split_dimension(dimension: Dimension) -> tuple[int, str]:
    """7 → (7, ""), `rows` → (1, "rows"), `2*rows` → (2, "rows")."""
    if isinstance(dimension, int):
        return dimension, ""
    factor, star, name = dimension.rpartition("*")
    return (int(factor), name) if star else (1, name)
