"""A video's frames as an array in an .npz file, written while later frames are still being decoded."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from typing import IO

import numpy as np
from numpy.typing import NDArray

NAME = "frames"


class FramesArrayWriter:
    """Writes the array `frames`, uint8 [frames, height, width, 3], into a stream, uncompressed."""

    def __init__(self, file: IO[bytes], frames: int, height: int, width: int) -> None:
        self._left, self._size = frames, (height, width, 3)
        self._archive = zipfile.ZipFile(file, "w", allowZip64=True)
        # A ZipInfo of its own has no date but 1980's.
        self._member = self._archive.open(zipfile.ZipInfo(f"{NAME}.npy"), "w", force_zip64=True)
        shape = (frames, *self._size)
        np.lib.format.write_array_header_1_0(self._member, {"descr": "|u1", "fortran_order": False, "shape": shape})

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Appends frames, uint8 RGB [frames, height, width, 3]."""
        self._left -= len(frames)
        self._member.write(np.ascontiguousarray(frames).data)

    def finish(self) -> None:
        """Writes the archive's index."""
        if self._left:
            raise ValueError(f"{self._left} frames are missing")
        self._member.close()
        self._archive.close()

    def close(self) -> None:
        """Lets go of the stream, finished or not."""
        # What is not finished is thrown away: what fails now was told before.
        for part in (self._member, self._archive):
            with suppress(OSError):
                part.close()
