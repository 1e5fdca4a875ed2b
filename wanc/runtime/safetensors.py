"""A strict reader and a small writer of safetensors files (https://github.com/huggingface/safetensors, format 0.x).

A file is the header's length (8 bytes, little-endian), the header (a JSON object: tensor name -> dtype, shape and byte
range), then the bytes of the tensors. Readers in use accept headers that this one refuses: repeated names, unknown
keys, names of any kind. A file read here is either exactly what it says, or an error.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from . import strict_json
from .errors import EXIT_NO_INPUT, BundleError
from .strict_json import JsonObject, JsonValue

HEADER_LIMIT = 25_000_000
TENSOR_LIMIT = 100_000
RANK_LIMIT = 8
ELEMENT_LIMIT = 2**53

# How the bits of each dtype are read. numpy has no bfloat16: uint16 stands in for it.
STORAGE_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
# What else the format has.
UNREAD = {
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), "float8"),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), "6-bit"),
    "F4": "4-bit",
    "C64": "complex",
}
_WRITABLE = {dtype: name for name, dtype in STORAGE_DTYPES.items() if name != "BF16"}
_NAME = re.compile(r"[A-Za-z0-9._/-]{1,512}")


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: `offset` counts from the start of the file, `length` is in bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def header_bytes(path: Path) -> bytes:
    """The bytes of a file's header, its length included, of a file that `read_header` accepts. Raises OSError."""
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(int.from_bytes(length, "little"))


def read_header(path: Path) -> dict[str, TensorInfo]:
    """All tensors of a file, in the order of their bytes; their values are not read.

    Raises:
        BundleError: no such file, or one that breaks the format or the limits above.
    """
    with _opened(path) as file:
        return _read_header(file, str(path))


class SafetensorsFile(Mapping[str, NDArray[Any]]):
    """The tensors of a file, mapped into memory: what is not touched is not read.

    `file[name]` is a read-only array of the tensor's shape. It shares the mapping, except for bfloat16, which is
    widened to float32. The file must not shrink while it is open.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file; raises BundleError as `read_header` does."""
        self.path = path
        with _opened(path) as file:
            self.tensors = _read_header(file, str(path))
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def expect_scattered_reads(self) -> None:
        """Stops the operating system from reading ahead, which costs more than the rows of a gather themselves."""
        if sys.platform != "win32":
            self._bytes.madvise(mmap.MADV_RANDOM)

    def bits(self, name: str) -> NDArray[Any]:
        """The tensor as it is stored: bfloat16 appears as uint16, all else in its own dtype."""
        tensor = self.tensors[name]
        storage = STORAGE_DTYPES[tensor.dtype]
        if tensor.length == 0:
            return np.empty(tensor.shape, storage)
        return np.ndarray(tensor.shape, storage, buffer=self._bytes, offset=tensor.offset)

    def __getitem__(self, name: str) -> NDArray[Any]:
        bits = self.bits(name)
        return widen_bfloat16(bits) if self.tensors[name].dtype == "BF16" else bits

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def widen_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 is the upper half of a float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def write(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays of the dtypes above; the bytes depend on nothing but names and values.

    Raises:
        ValueError: another dtype, or a name that the reader would refuse.
    """
    # Wide elements first, so that each tensor starts at a multiple of its element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {}
    position = 0
    for name in names:
        array = tensors[name]
        if array.dtype not in _WRITABLE or not _NAME.fullmatch(name):
            raise ValueError(f"cannot write {name!r} of {array.dtype}")
        span = [position, position + array.nbytes]
        header[name] = {"dtype": _WRITABLE[array.dtype], "shape": list(array.shape), "data_offsets": span}
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(np.ascontiguousarray(tensors[name]).data)


class UnreadDtypeError(BundleError):
    """A sound file with tensors in a format that is not read yet."""


class _FormatError(Exception):
    """What is wrong with a file, without its path."""


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise BundleError("no such file", where=str(path), exit_code=EXIT_NO_INPUT) from error
    except OSError as error:
        raise BundleError("the file cannot be read", where=str(path)) from error


def _read_header(file: BinaryIO, where: str) -> dict[str, TensorInfo]:
    try:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise _FormatError(f"a header of {length} bytes in a file of {size}")
        if length > HEADER_LIMIT:
            raise _FormatError(f"a header of {length} bytes; the limit is {HEADER_LIMIT}")
        text = file.read(length)
        if not text.startswith(b"{"):
            raise _FormatError("the header does not start with '{'")
        return _parse_header(strict_json.parse(text, where=where, max_bytes=HEADER_LIMIT), 8 + length, size)
    except _FormatError as error:
        raise BundleError(f"not a sound safetensors file: {error}", where=where) from None
    except UnreadDtypeError as error:
        error.where = where
        raise


def _parse_header(header: JsonValue, data_start: int, size: int) -> dict[str, TensorInfo]:
    entries = _object("the header", header)
    metadata = _object("__metadata__", entries.pop("__metadata__", {}))
    if not all(isinstance(value, str) for value in metadata.values()):
        raise _FormatError("__metadata__ holds something other than strings")
    if len(entries) > TENSOR_LIMIT:
        raise _FormatError(f"{len(entries)} tensors; the limit is {TENSOR_LIMIT}")
    tensors = {name: _parse_tensor(name, entry, data_start) for name, entry in entries.items()}
    return _in_file_order(tensors, data_start, size)


def _parse_tensor(name: str, entry: JsonValue, data_start: int) -> TensorInfo:
    if not _NAME.fullmatch(name):
        raise _FormatError(f"a tensor is called {name[:100]!r}")
    fields = _object(name, entry)
    if set(fields) != {"dtype", "shape", "data_offsets"}:
        raise _FormatError(f"{name} is not described by dtype, shape and data_offsets alone")
    dtype = fields["dtype"]
    if not isinstance(dtype, str) or dtype not in STORAGE_DTYPES:
        unknown = f"{name} has the dtype {str(dtype)[:100]!r}; known are {', '.join(STORAGE_DTYPES)}"
        if isinstance(dtype, str) and dtype in UNREAD:
            raise UnreadDtypeError(f"{UNREAD[dtype]} weights are not read yet: {unknown}")
        raise _FormatError(unknown)
    shape = _naturals(f"the shape of {name}", fields["shape"])
    span = _naturals(f"the data_offsets of {name}", fields["data_offsets"])
    # A zero among the dimensions must not hide others whose product no array library can hold.
    if math.prod(dimension or 1 for dimension in shape) > ELEMENT_LIMIT:
        raise _FormatError(f"{name} has the shape {list(shape)}")
    length = math.prod(shape) * STORAGE_DTYPES[dtype].itemsize
    if len(span) != 2 or span[1] - span[0] != length:
        raise _FormatError(f"{name} takes {length} bytes, and its data_offsets are {list(span)}")
    return TensorInfo(dtype, shape, data_start + span[0], length)


def _in_file_order(tensors: dict[str, TensorInfo], data_start: int, size: int) -> dict[str, TensorInfo]:
    """Checks on the way that the tensors fill the file, without holes and without overlaps."""
    ordered = sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].length))
    position = data_start
    for name, tensor in ordered:
        if tensor.offset != position:
            raise _FormatError(f"{name} starts at byte {tensor.offset}, where {position} is due")
        position += tensor.length
    if position != size:
        raise _FormatError(f"the tensors end at byte {position} of {size}")
    return dict(ordered)


def _object(name: str, value: JsonValue) -> JsonObject:
    if not isinstance(value, dict):
        raise _FormatError(f"{name} is not a JSON object")
    return value


def _naturals(name: str, value: JsonValue) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > RANK_LIMIT:
        raise _FormatError(f"{name} is not a list of at most {RANK_LIMIT} numbers")
    numbers: list[int] = []
    for item in value:
        # To Python, true is an int.
        if not isinstance(item, int) or isinstance(item, bool) or item < 0:
            raise _FormatError(f"{name} holds {str(item)[:100]}")
        numbers.append(item)
    return tuple(numbers)
