"""What an ONNX file says of itself beside its graph, read without a library that would parse all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROPERTIES = 14
"""The field of ONNX's ModelProto that holds pairs of texts; of each, field 1 is the key and field 2 the value."""
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}


def properties(path: Path) -> dict[str, str]:
    """A model's properties by key. Raises ValueError where the file is not one."""
    found: dict[str, str] = {}
    for number, content in _fields(memoryview(path.read_bytes())):
        if number == PROPERTIES:
            texts = {field: str(text, "utf-8", "replace") for field, text in _fields(content)}
            found[texts.get(1, "")] = texts.get(2, "")
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a protobuf message with their numbers, in their order; messages in them are bytes."""
    place = 0
    while place < len(message):
        tag, start = _varint(message, place)
        kind = tag & 7
        if kind == _BYTES:
            length, start = _varint(message, start)
            end = start + length
        elif kind == _VARINT:
            _, end = _varint(message, start)
        else:
            end = start + _FIXED.get(kind, len(message))
        if end > len(message):
            raise ValueError("not an ONNX file")
        yield tag >> 3, message[start:end]
        place = end


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift, byte in enumerate(message[place : place + 10]):
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value, place + shift + 1
    raise ValueError("not an ONNX file")
