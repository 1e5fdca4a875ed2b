"""Random weights that depend on the seed and the tensor's canonical name alone, and so not on the layout."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "BF16": np.dtype(ml_dtypes.bfloat16)}
PIECE = 2**22  # values held at once
LEVELS = 2**16


def random_pieces(seed: int, component: str, name: str, shape: tuple[int, ...], dtype: str) -> Iterator[NDArray[Any]]:
    """The tensor's values, a piece at a time, in order: evenly spread, on 65,536 levels.

    Weights keep activations near 1 through a product; scales lie around 1, shifts and biases around 0.
    """
    digest = hashlib.sha256(f"{seed}/{component}/{name}".encode()).digest()
    generator = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    table = _levels(name, shape).astype(DTYPES[dtype])
    remaining = math.prod(shape)
    while remaining:
        count = min(remaining, PIECE)
        # Raw bits are the one stream that numpy promises never to change.
        indices = generator.random_raw(-(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]
        yield table[indices].view(f"<u{table.itemsize}")
        remaining -= count


def _levels(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """What a level stands for: evenly from -1 to 1, then moved to where the tensor's values are."""
    levels = (np.arange(LEVELS, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / LEVELS) - np.float32(1)
    is_scale = "norm" in name and not name.endswith(".bias")
    if is_scale or math.prod(shape) == max(shape):
        return np.float32(is_scale) + np.float32(0.2) * levels
    return np.float32(0.9 * math.prod(shape[1:]) ** -0.5) * levels
