"""Writes safetensors files tensor by tensor, so that a file may be larger than memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
Pieces = Iterable[NDArray[Any]]


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its name there, and safetensors' name of its dtype."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def write_tensors(
    path: Path, entries: Sequence[Entry], pieces: Callable[[Entry], Pieces], advance: Callable[[int], None]
) -> None:
    """Write the entries in their order. `pieces` gives a tensor's contiguous arrays, `advance` counts their bytes.

    The file depends on names, shapes and bytes alone.
    """
    with path.open("xb") as file:
        file.write(_header(entries))
        for entry in entries:
            before = file.tell()
            for piece in pieces(entry):
                file.write(piece.data)
                advance(piece.nbytes)
            if file.tell() - before != entry.nbytes:
                raise AssertionError(f"{entry.name} should take {entry.nbytes} bytes")
    path.chmod(0o644)


def write_zeros(path: Path, entries: Sequence[Entry]) -> None:
    """The same file with all values zero, as a hole that takes no room on disk."""
    header = _header(entries)
    with path.open("xb") as file:
        file.write(header)
        file.truncate(len(header) + sum(entry.nbytes for entry in entries))
    path.chmod(0o644)


def _header(entries: Sequence[Entry]) -> bytes:
    described: dict[str, object] = {}
    position = 0
    for entry in entries:
        end = position + entry.nbytes
        described[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
