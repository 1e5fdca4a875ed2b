"""Protobuf's wire format as a tree that can be changed and written again, without knowing any message's type."""

from __future__ import annotations

from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED_LENGTHS = {FIXED64: 8, FIXED32: 4}
HIGHEST_NUMBER = 40
"""Of a field of onnx.proto. Texts seldom are messages with numbers as low as that."""
DEEPEST = 60


class Field(NamedTuple):
    """A number, a wire type, and a value: a number, bytes, or a message where bytes are one."""

    number: int
    wire: int
    value: int | bytes | Message


Message = list[Field]


def decode(data: bytes, depth: int = 0) -> Message | None:
    """The fields of a message; None where the bytes are none. What is nested very deep stays bytes."""
    fields: Message = []
    position = 0
    try:
        while position < len(data):
            key, position = _number(data, position)
            number, wire = key >> 3, key & 7
            if not 0 < number <= HIGHEST_NUMBER:
                return None
            if wire == VARINT:
                value, position = _number(data, position)
                fields.append(Field(number, wire, value))
                continue
            if wire == BYTES:
                length, position = _number(data, position)
            else:
                length = FIXED_LENGTHS[wire]
            content = data[position : position + length]
            if len(content) < length:
                return None
            position += length
            inner = decode(content, depth + 1) if wire == BYTES and content and depth < DEEPEST else None
            fields.append(Field(number, wire, content if inner is None else inner))
    except (IndexError, KeyError):
        return None
    return fields


def encode(message: Message) -> bytes:
    """The bytes of a message. Numbers are written as they are counted, modulo 2^64."""
    data = bytearray()
    for number, wire, value in message:
        data += varint(number << 3 | wire)
        if isinstance(value, int):
            data += varint(value)
            continue
        content = encode(value) if isinstance(value, list) else value
        data += (varint(len(content)) if wire == BYTES else b"") + content
    return bytes(data)


def varint(value: int) -> bytes:
    value %= 2**64
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _number(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
