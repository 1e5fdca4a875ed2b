"""Weights that no training leaves: NaNs and infinities, and nothing but zeros.

Of a damaged, diverged or half-downloaded checkpoint they would give noise without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from wanc.errors import CheckpointError

Bits = np.ndarray[Any, Any]
PIECE = 2**18  # elements; what is compared stays in the processor's cache


class Pattern(NamedTuple):
    """A value is not finite when its bits under `mask` equal `value`; infinite when that leaves only the sign."""

    storage: str
    mask: int
    value: int
    sign: int


def _ieee(storage: str, exponent: int, sign: int) -> Pattern:
    return Pattern(storage, exponent, exponent, sign)


# By ONNX's names. Of the 8-bit formats (onnx.ai/onnx/technical/float8.html) only E5M2 has infinities.
PATTERNS: Mapping[str, Pattern] = {
    "FLOAT": _ieee("<u4", 0x7F800000, 0x80000000),
    "DOUBLE": _ieee("<u8", 0x7FF0000000000000, 0x8000000000000000),
    "FLOAT16": _ieee("<u2", 0x7C00, 0x8000),
    "BFLOAT16": _ieee("<u2", 0x7F80, 0x8000),
    "FLOAT8E5M2": _ieee("u1", 0x7C, 0x80),
    "FLOAT8E4M3FN": Pattern("u1", 0x7F, 0x7F, 0),
    "FLOAT8E4M3FNUZ": Pattern("u1", 0xFF, 0x80, 0),
    "FLOAT8E5M2FNUZ": Pattern("u1", 0xFF, 0x80, 0),
    "FLOAT8E8M0": Pattern("u1", 0xFF, 0xFF, 0),
}


def count_not_finite(data: Bits, dtype: str) -> int:
    """How many of the values, whose bytes (uint8, contiguous) are `data`, are NaN or infinite.

    `dtype` is ONNX's name; types that have no such values count none.
    """
    pattern = PATTERNS.get(dtype)
    if pattern is None:
        return 0
    bits = data.view(pattern.storage)
    mask, value = bits.dtype.type(pattern.mask), bits.dtype.type(pattern.value)
    pieces = (bits[start : start + PIECE] for start in range(0, bits.size, PIECE))
    return sum(int(np.count_nonzero((piece & mask) == value)) for piece in pieces)


def is_lone_infinity(data: Bits, dtype: str) -> bool:
    """Whether this is one single value, and infinite: what a graph fills masks with, and no weight."""
    pattern = PATTERNS.get(dtype)
    if pattern is None or not pattern.sign or data.size != np.dtype(pattern.storage).itemsize:
        return False
    return int(data.view(pattern.storage)[0]) & ~pattern.sign == pattern.value


def is_all_zeros(data: Bits, dtype: str) -> bool:
    """Whether there are bytes (uint8, contiguous), and all of their values are zero, of whichever sign.

    `dtype` is ONNX's name. Of most tensors few values are looked at.
    """
    pattern = PATTERNS.get(dtype)
    bits = data.view(pattern.storage) if pattern else data
    mask = ~bits.dtype.type(pattern.sign if pattern else 0)
    return bits.size > 0 and not any((bits[start : start + PIECE] & mask).any() for start in range(0, bits.size, PIECE))


@dataclass
class FiniteCheck:
    """Refuses what is not finite in the tensors of one component, except in those `allowed` by name.

    `found` counts, by name, what was let through. Of a checkpoint's component `zeros` are the tensors that may be
    nothing but zeros; None of other graphs, whose constants may be anything.
    """

    component: str
    allowed: Collection[str] = ()
    found: dict[str, int] = field(default_factory=dict[str, int])
    zeros: Collection[str] | None = None

    def add(self, tensor: str, data: Bits, dtype: str, *, where: str | None) -> None:
        """Look at all bytes (uint8, contiguous) of a tensor. Raises CheckpointError; `where` names their file."""
        self.note(tensor, 0 if is_lone_infinity(data, dtype) else count_not_finite(data, dtype), where=where)
        if where is not None:
            self.note_zeros(tensor, is_all_zeros(data, dtype), where=where)

    def note_zeros(self, tensor: str, are_all_zeros: bool, *, where: str) -> None:
        """Raises CheckpointError for a tensor of a checkpoint that is all zeros and no bias: those may be unused."""
        if self.zeros is None or not are_all_zeros or tensor in self.zeros or tensor.endswith(".bias"):
            return
        raise CheckpointError(
            f"{self.component}: tensor {tensor} is nothing but zeros, as no training leaves it",
            where=where,
            hint=f"is the download complete? If it is meant, let it pass: `allow: [{tensor}]` under model",
        )

    def note(self, tensor: str, count: int, *, where: str | None) -> None:
        """Take a tensor's count. Raises CheckpointError where there are any and the tensor is not allowed them."""
        if not count:
            return
        if tensor not in self.allowed:
            values = "1 value that is" if count == 1 else f"{count} values that are"
            raise CheckpointError(
                f"{self.component}: tensor {tensor} holds {values} not finite",
                where=where,
                hint=f"if that is meant, as in a mask, allow it: model.allow_not_finite: [{tensor}]",
            )
        self.found[tensor] = count
