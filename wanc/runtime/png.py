"""PNG pictures (ISO/IEC 15948), with texts: the same frame and texts give the same bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTH, _RGB, _UP = 8, 2, 2
LEVEL = 9


class PngWriter:
    """Writes a single frame into a stream."""

    def __init__(self, file: IO[bytes], texts: Mapping[str, str]) -> None:
        self._file, self._texts = file, texts

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Writes the picture, uint8 RGB [1, height, width, 3]."""
        _, height, width, _ = frames.shape
        self._file.write(_SIGNATURE)
        # Neither compressed nor interlaced otherwise than everybody does: the last three zeros.
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, _DEPTH, _RGB, 0, 0, 0))
        for name, text in self._texts.items():
            # Of a text in UTF-8: no compression, no language, no translated name.
            self._chunk(b"iTXt", name.encode("latin-1") + b"\0\0\0\0\0" + text.encode())
        # Each line as the difference from the one above, which compresses better; the first byte says so.
        rows = frames.reshape(height, width * 3)
        filtered = np.pad(np.diff(rows, axis=0, prepend=np.uint8(0)), ((0, 0), (1, 0)), constant_values=_UP)
        self._chunk(b"IDAT", zlib.compress(filtered.tobytes(), LEVEL))
        self._chunk(b"IEND", b"")

    def finish(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is held."""

    def _chunk(self, kind: bytes, data: bytes) -> None:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        self._file.write(struct.pack(">I", len(data)) + kind + data + checksum)
