"""The text encoder's embedding table as a file of its own, in the dtype in which the checkpoint stores it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck, count_not_finite, is_all_zeros
from wanc.errors import CheckpointError
from wanc.models.wan.tensors import SHARED_EMBEDDING, TIED_EMBEDDING
from wanc.models.weights import Weight
from wanc.runtime import safetensors
from wanc.runtime.embeddings import EmbeddingTable

TENSOR = "embedding"
SAFETENSORS_DTYPES = {"FLOAT": "F32", "FLOAT16": "F16", "BFLOAT16": "BF16"}
COPY_BYTES = 16 * 2**20


def open_embedding(weight: Weight, source: Files) -> EmbeddingTable:
    """The table where it lies in the checkpoint."""
    path = source[weight.file]
    header = safetensors.read_header(path)
    (name,) = [name for name, info in header.items() if info.offset == weight.offset]
    return EmbeddingTable.open(path, name)


def copy_embedding(
    weight: Weight, source: Files, path: Path, finite: FiniteCheck, twin: Weight | None = None
) -> Weight:
    """Copy the table's bytes into a one-tensor safetensors file, a piece at a time. Returns where it now lies.

    Raises CheckpointError where `finite` refuses its values, and where `twin`, the same table as the checkpoint holds
    it under another name, is another one.
    """
    description = {
        "dtype": SAFETENSORS_DTYPES[weight.dtype],
        "shape": list(weight.shape),
        "data_offsets": [0, weight.length],
    }
    header = json.dumps({TENSOR: description}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    not_finite, are_all_zeros = 0, True
    with path.open("wb") as target:
        target.write(len(header).to_bytes(8, "little") + header)
        for piece, other in zip(_pieces(weight, source), _pieces(twin or weight, source), strict=True):
            if piece != other:
                raise CheckpointError(
                    f"text_encoder: {TIED_EMBEDDING} and {SHARED_EMBEDDING} are one tensor under two names, and differ",
                    where=str(source[(twin or weight).file]),
                    hint="remove the one that the text encoder was not trained with",
                )
            target.write(piece)
            data = np.frombuffer(piece, np.uint8)
            not_finite += count_not_finite(data, weight.dtype)
            are_all_zeros = are_all_zeros and is_all_zeros(data, weight.dtype)
    finite.note(SHARED_EMBEDDING, not_finite, where=str(source[weight.file]))
    finite.note_zeros(SHARED_EMBEDDING, are_all_zeros, where=str(source[weight.file]))
    return replace(weight, offset=8 + len(header))


def _pieces(weight: Weight, source: Files) -> Iterator[bytes]:
    """A weight's bytes, a few at a time."""
    with source[weight.file].open("rb") as stream:
        stream.seek(weight.offset)
        for start in range(0, weight.length, COPY_BYTES):
            wanted = min(COPY_BYTES, weight.length - start)
            piece = stream.read(wanted)
            if len(piece) < wanted:
                raise EOFError(f"{weight.file} ends before its embedding table does")
            yield piece
