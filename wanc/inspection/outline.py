"""An ONNX file without its data: protobuf's wire format is walked, and only the fields that are asked for are kept.

The protobuf library reads a message as a whole, while a model may have gigabytes of weights inside, and a hostile file
of a few megabytes can hold millions of empty messages. Field numbers are those of onnx.proto (ONNX IR); the encoding is
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wanc.artifacts.files import opened_input
from wanc.errors import EXIT_DATA, UserError

if TYPE_CHECKING:
    import onnx

# Message → the fields that are kept: None is copied as it is, a name is a message of which a part is kept.
KEPT: Mapping[str, Mapping[int, str | None]] = {
    "ModelProto": {1: None, 2: None, 3: None, 7: "GraphProto", 8: None, 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 11: None, 12: None, 15: "SparseTensorProto"},
    "FunctionProto": {1: None, 10: None},
    "NodeProto": {4: None, 5: "AttributeProto", 7: None},
    "AttributeProto": {5: "TensorProto", 6: "GraphProto", 11: "GraphProto"},
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {1: None, 2: None, 8: None, 13: None, 14: None},
}
# An attribute without tensors and graphs says nothing that is asked for.
DROPPED_WHEN_EMPTY = "AttributeProto"
LONG_BYTES = 4096  # nothing that is copied as it is should be longer: a name, a type, a dimension
MAX_FIELDS = 3_000_000
MAX_KEPT = 400_000  # a node is at least two: itself and its operator
MAX_DEPTH = 48  # a subgraph is three messages deep: 16 of them

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_outline(path: Path) -> onnx.ModelProto:
    """The model in the file with only the fields of `KEPT`: no data of tensors, no names of values inside.

    Raises UserError when the file cannot be read, is not an ONNX model, or is larger than any that has a use.
    """
    with opened_input(path) as descriptor:
        size = os.fstat(descriptor).st_size
        try:
            return _parsed(_Walk(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)).outline() if size else b"")
        except _OutlineError as error:
            raise UserError(f"is not an ONNX model: {error}", where=str(path), exit_code=EXIT_DATA) from None


class _OutlineError(Exception):
    """What is wrong with a file, without its path."""


class _Walk:
    """One pass over a file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._fields = 0
        self._kept = 0

    def outline(self) -> bytes:
        with self._data:
            return bytes(self._message("ModelProto", 0, len(self._data), 0))

    def _message(self, kind: str, position: int, end: int, depth: int) -> bytearray:
        """The outline of the message that lies from `position` to `end`."""
        if depth > MAX_DEPTH:
            raise _OutlineError(f"messages are nested deeper than {MAX_DEPTH}")
        kept, wanted = bytearray(), KEPT[kind]
        while position < end:
            start = position
            key, position = self._varint(position, end)
            content, position = self._content(key & 7, position, end)
            self._count()
            field = key >> 3
            if field not in wanted:
                continue
            inner = wanted[field]
            if inner is None and position - start <= LONG_BYTES:
                self._kept += 1
                kept += self._data[start:position]
            elif inner is not None and key & 7 == _BYTES:
                child = self._message(inner, content, position, depth + 1)
                if child or inner != DROPPED_WHEN_EMPTY:
                    self._kept += 1
                    kept += _encoded(key) + _encoded(len(child)) + child
        return kept

    def _content(self, wire: int, position: int, end: int) -> tuple[int, int]:
        """Where a field's content begins and ends."""
        if wire == _BYTES:
            length, position = self._varint(position, end)
            content = (position, position + length)
        elif wire == _VARINT:
            content = (position, self._varint(position, end)[1])
        elif wire in (_FIXED32, _FIXED64):
            content = (position, position + (4 if wire == _FIXED32 else 8))
        else:
            raise _OutlineError(f"no field starts before byte {position}")
        if content[1] > end:
            raise _OutlineError(f"the field at byte {position} ends behind its message")
        return content

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while position < end and shift < 64:
            byte = self._data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
        raise _OutlineError(f"no number ends before byte {position}")

    def _count(self) -> None:
        self._fields += 1
        if self._fields > MAX_FIELDS or self._kept > MAX_KEPT:
            raise _OutlineError(f"it has more than {MAX_FIELDS} fields, or {MAX_KEPT} that count")


def _encoded(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _parsed(outline: bytes) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(outline)
    except DecodeError:
        raise _OutlineError("its messages do not fit together") from None
    if not model.HasField("graph") or not model.opset_import:
        raise _OutlineError("it has no graph or no operator set")
    return model
