"""What parsing a protobuf would cost, found out without parsing it.

A parser makes a message of some 150 bytes out of two bytes of file, and has made millions of them before anybody can
count. Here the wire format (protobuf.dev/programming-guides/encoding) is walked first: nothing is allocated.
"""

from __future__ import annotations

from typing import Any

from wanc.errors import CheckpointError
from wanc.models.onnx_limits import MAX_FIELDS, MAX_MESSAGES, MAX_PACKED_NUMBERS

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED_LENGTHS = {FIXED64: 8, FIXED32: 4}


class _MalformedError(Exception):
    """Bytes that are no protobuf."""


def check_wire(data: bytes, descriptor: Any, *, where: str) -> None:
    """Walk a serialised message of the type that `descriptor` describes.

    Raises CheckpointError where it is not well formed, holds text that is not UTF-8, or breaks a limit on the number of
    values, messages or packed numbers.
    """
    try:
        _walk(data, descriptor, where)
    except (_MalformedError, IndexError):
        raise CheckpointError("not an ONNX file", where=where, hint="is the download complete?") from None
    except UnicodeDecodeError:
        raise CheckpointError("holds a text that is not UTF-8", where=where) from None


def _walk(data: bytes, descriptor: Any, where: str) -> None:
    kinds = _Kinds()
    fields = messages = packed = 0
    pending = [(0, len(data), descriptor)]
    while pending:
        position, end, message = pending.pop()
        children = kinds.of(message)
        while position < end:
            fields += 1
            tag = data[position]
            position += 1
            if tag > 0x7F:  # as hardly any is: a call for each would double the time
                tag, position = _varint(data, position - 1)
            wire_type = tag & 7
            if wire_type == BYTES:
                length = data[position]
                position += 1
                if length > 0x7F:
                    length, position = _varint(data, position - 1)
                start, position = position, position + length
                kind = children.get(tag >> 3)
                if kind is _TEXT:
                    data[start:position].decode()
                elif kind is _NUMBERS:
                    packed += length
                elif kind is not None:
                    messages += 1
                    if length:
                        pending.append((start, position, kind))
            elif wire_type == VARINT:
                _, position = _varint(data, position)
            elif wire_type in FIXED_LENGTHS and tag > 7:
                position += FIXED_LENGTHS[wire_type]
            else:
                raise _MalformedError
            if position > end:
                raise _MalformedError
            if fields > MAX_FIELDS or messages > MAX_MESSAGES or packed > MAX_PACKED_NUMBERS:
                raise _too_much(fields, messages, where)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and the position after it."""
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    value, shift = byte & 0x7F, 7
    while shift < 70:
        position += 1
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
    raise _MalformedError


def _too_much(fields: int, messages: int, where: str) -> CheckpointError:
    if fields > MAX_FIELDS:
        return CheckpointError(f"more than the {MAX_FIELDS} values allowed", where=where)
    if messages > MAX_MESSAGES:
        return CheckpointError(f"more than the {MAX_MESSAGES} messages allowed", where=where)
    return CheckpointError(
        f"more than the {MAX_PACKED_NUMBERS} bytes of packed numbers allowed",
        where=where,
        hint="save the model with its weights as raw or external data",
    )


_TEXT, _NUMBERS = object(), object()


class _Kinds:
    """For each message type, what its length-delimited fields hold: a message type, text, or packed numbers."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, Any]] = {}

    def of(self, descriptor: Any) -> dict[int, Any]:
        known = self._known.get(descriptor.full_name)
        if known is None:
            kinds = {field.number: _kind(field) for field in descriptor.fields}
            known = self._known[descriptor.full_name] = {n: kind for n, kind in kinds.items() if kind is not None}
        return known


def _kind(field: Any) -> Any:
    if field.type == field.TYPE_MESSAGE:
        return field.message_type
    if field.type == field.TYPE_STRING:
        return _TEXT
    return None if field.type == field.TYPE_BYTES else _NUMBERS
