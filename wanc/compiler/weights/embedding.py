"""The text encoder's embedding table as a file of its own, in the dtype in which the checkpoint stores it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck, count_not_finite
from wanc.models.wan.tensors import SHARED_EMBEDDING
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


def copy_embedding(weight: Weight, source: Files, path: Path, finite: FiniteCheck) -> Weight:
    """Copy the table's bytes into a one-tensor safetensors file, a piece at a time. Returns where it now lies.

    Raises CheckpointError where `finite` refuses its values.
    """
    description = {
        "dtype": SAFETENSORS_DTYPES[weight.dtype],
        "shape": list(weight.shape),
        "data_offsets": [0, weight.length],
    }
    header = json.dumps({TENSOR: description}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as target, source[weight.file].open("rb") as stream:
        target.write(len(header).to_bytes(8, "little") + header)
        stream.seek(weight.offset)
        remaining, not_finite = weight.length, 0
        while remaining:
            piece = stream.read(min(COPY_BYTES, remaining))
            if not piece:
                raise EOFError(f"{weight.file} ends before its embedding table does")
            target.write(piece)
            remaining -= len(piece)
            not_finite += count_not_finite(np.frombuffer(piece, np.uint8), weight.dtype)
    finite.note(SHARED_EMBEDDING, not_finite, where=str(source[weight.file]))
    return replace(weight, offset=8 + len(header))
