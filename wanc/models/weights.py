"""Where the bytes of a checkpoint's tensors lie. No weight is read here: headers only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Weight:
    """One tensor: `length` bytes at `offset` of `file`.

    `file` is relative to the model's source, or is `program/<path>`: a file that the export wrote beside its program.
    `dtype` is ONNX's name for it (FLOAT, BFLOAT16, ...), `shape` as stored ([out, in] for a Linear).
    """

    file: str
    offset: int
    length: int
    dtype: str
    shape: tuple[int, ...]
