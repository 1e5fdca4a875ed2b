"""Token embeddings gathered row by row from disk.

umT5's table is 2.1 GB, a prompt needs at most 512 of its 256,384 rows: only those are read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError
from .pool import Empty
from .safetensors import SafetensorsFile


class EmbeddingTable:
    """A float32, float16 or bfloat16 tensor [vocabulary, width] in a safetensors file.

    `bytes_read` counts the bytes of the rows gathered so far.
    """

    def __init__(self, file: SafetensorsFile, tensor: str) -> None:
        info = file.tensors.get(tensor)
        if info is None:
            raise BundleError(f"no tensor {tensor}", where=str(file.path))
        if len(info.shape) != 2 or info.dtype not in ("F32", "F16", "BF16"):
            raise BundleError(
                f"{tensor} is {info.dtype} {list(info.shape)}, not an embedding table", where=str(file.path)
            )
        self.vocabulary, self.width = info.shape
        self.bytes_read = 0
        self._is_bfloat16 = info.dtype == "BF16"
        file.expect_scattered_reads()
        self._rows = file.bits(tensor)

    @classmethod
    def open(cls, path: Path, tensor: str) -> EmbeddingTable:
        """Maps the table.

        Raises:
            BundleError: no such file or tensor, or not a table of floats.
        """
        return cls(SafetensorsFile(path), tensor)

    def gather(self, ids: NDArray[np.int64], empty: Empty = np.empty) -> NDArray[np.float32]:
        """The rows of `ids` [tokens] as float32 [tokens, width], an array that `empty` makes.

        Raises:
            BundleError: an id outside the vocabulary, so that the tokenizer and the table are not of one model.
        """
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self.vocabulary:
            raise BundleError(
                f"token ids from {ids.min()} to {ids.max()} for a table of {self.vocabulary} rows",
                hint="the tokenizer and the embedding table belong to different models",
            )
        self.bytes_read += ids.size * self.width * self._rows.itemsize
        found = empty((ids.size, self.width), np.uint32 if self._is_bfloat16 else np.float32)
        for row, number in zip(found, ids, strict=True):
            row[:] = self._rows[number]
        if self._is_bfloat16:
            found <<= np.uint32(16)  # it is the upper half of a float32
        return found.view(np.float32)
