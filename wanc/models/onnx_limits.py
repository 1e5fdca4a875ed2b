"""What an ONNX file may ask for before wanc looks any further. Every limit is tested at its value and one beyond it."""

from __future__ import annotations

from collections.abc import Mapping

MAX_PROTO_BYTES = 64 * 2**20
"""Of the file itself; larger models keep their weights in files beside it."""

MAX_FIELDS = 2_000_000
"""Values in the file, counted one by one: a node with its names, attributes and shapes is some 10 to 30."""

MAX_MESSAGES = 1_000_000
"""Of these, how many are messages, which cost 150 bytes of memory each however few they take in the file."""

MAX_PACKED_NUMBERS = 8 * 2**20
"""Bytes of packed numbers: each may become a number of 8 bytes in memory."""

MAX_NODES = 200_000
"""Subgraphs included, and functions as often as they are called."""

MAX_DEPTH = 16
"""How deep subgraphs and calls of functions may be nested."""

MAX_TENSORS = 100_000
MAX_RANK = 8
MAX_DIMENSION = 2**31 - 1
MAX_TENSOR_BYTES = 16 * 2**30
MAX_NAME_BYTES = 128
"""Of an input's or output's name, which becomes the name of an archive's member and, escaped, of a golden tensor."""

OPSETS: Mapping[str, tuple[int, int]] = {"": (7, 28), "ai.onnx.ml": (1, 5), "com.microsoft": (1, 1)}
"""Operator sets that the CPU engine executes, by domain, with their versions: what onnxruntime guarantees of ONNX's
own, and onnxruntime's contributed operators. Everything else needs a library that a bundle would not have."""


def memory_bytes(size: int) -> int:
    """What reading a file of so many bytes may take: nodes take 20 times what they have there, short ones 75 times."""
    return 300 * 2**20 + 64 * size


def inference_seconds(size: int) -> int:
    """What ONNX's own checker and inference may compute over a graph of so many bytes; 15,000 nodes are 4 MiB."""
    return 2 + 4 * size // 2**20
