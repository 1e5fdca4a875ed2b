"""The header of an engine file: which version wrote it, and for which GPUs. What is in it is not documented."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

MAGIC = b"vtrt"
SIZE_AT, VERSION_AT, TARGETS_AT, HEADER_BYTES = 0x10, 0x18, 0x20, 0x40
TARGETS: Mapping[str, int] = {"sm75": 1, "sm80": 2, "sm86": 4, "sm89": 8, "sm120": 16, "sm121": 32}
"""The bit of each compute capability."""


def header_fault(path: Path, target: str, version: str) -> str | None:
    """What is wrong with an engine file that is to be for one target, built by a version; None where nothing is."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        return "it is no engine file of TensorRT"
    wrote = ".".join(str(part) for part in header[VERSION_AT : VERSION_AT + 4])
    if wrote != version:
        return f"it was written by version {wrote}, not {version}"
    (size,), (bits,) = struct.unpack_from("<Q", header, SIZE_AT), struct.unpack_from("<I", header, TARGETS_AT)
    if bits != TARGETS[target]:
        found = [name for name, bit in TARGETS.items() if bits & bit] or ["no known target"]
        return f"it is for {' and '.join(found)}, not for {target}"
    length = path.stat().st_size
    return f"it has {length} bytes, and its header says {size}" if length < size else None
