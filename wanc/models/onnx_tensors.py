"""The tensors of an ONNX file: that each is as large as it says, and lies where it may."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from wanc.errors import CheckpointError
from wanc.models.onnx_limits import MAX_DIMENSION, MAX_RANK, MAX_TENSOR_BYTES, MAX_TENSORS

T = onnx.TensorProto
BITS: Mapping[int, int] = {
    T.FLOAT: 32, T.UINT8: 8, T.INT8: 8, T.UINT16: 16, T.INT16: 16, T.INT32: 32, T.INT64: 64, T.BOOL: 8, T.FLOAT16: 16,
    T.DOUBLE: 64, T.UINT32: 32, T.UINT64: 64, T.COMPLEX64: 64, T.COMPLEX128: 128, T.BFLOAT16: 16, T.FLOAT8E4M3FN: 8,
    T.FLOAT8E4M3FNUZ: 8, T.FLOAT8E5M2: 8, T.FLOAT8E5M2FNUZ: 8, T.UINT4: 4, T.INT4: 4, T.FLOAT4E2M1: 4,
    T.FLOAT8E8M0: 8, T.UINT2: 2, T.INT2: 2,
}  # fmt: skip
TYPED_FIELDS: Mapping[int, str] = {
    T.FLOAT: "float_data", T.COMPLEX64: "float_data", T.DOUBLE: "double_data", T.COMPLEX128: "double_data",
    T.INT64: "int64_data", T.UINT32: "uint64_data", T.UINT64: "uint64_data", T.STRING: "string_data",
}  # fmt: skip
"""Where values stand that are not raw bytes; all other types share int32_data."""

_KEYS = {"location", "offset", "length", "checksum"}
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class ExternalRange:
    """Where a tensor says that it lies: `length` bytes at `offset` of the file `location`; `kind` is type and shape."""

    tensor: str
    location: str
    offset: int
    length: int
    kind: tuple[int, ...]


@dataclass
class Tensors:
    """Checks tensors one by one, and remembers those that lie in other files."""

    where: str
    count: int = 0
    external: list[ExternalRange] = field(default_factory=list[ExternalRange])

    def check(self, tensor: onnx.TensorProto, name: str, *, may_be_external: bool) -> None:
        """Raises CheckpointError naming the tensor and what is wrong with it."""
        self.count += 1
        if self.count > MAX_TENSORS:
            raise CheckpointError(f"more than the {MAX_TENSORS} tensors allowed", where=self.where)
        shown = quoted(name)
        fault = shape_fault(tensor.dims) or _size_fault(tensor)
        if fault:
            raise CheckpointError(f"tensor {shown} {fault}", where=self.where)
        if tensor.data_location != T.EXTERNAL:
            if fault := _data_fault(tensor):
                raise CheckpointError(f"tensor {shown} {fault}", where=self.where)
        elif not may_be_external:
            raise CheckpointError(
                f"tensor {shown} lies in another file, which only initializers may",
                where=self.where,
                hint="save the model with onnx.save(…, convert_attribute=False)",
            )
        else:
            self.external.append(self._external(tensor, shown))

    def _external(self, tensor: onnx.TensorProto, shown: str) -> ExternalRange:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if len(entries) < len(tensor.external_data) or not entries.keys() <= _KEYS or "location" not in entries:
            raise CheckpointError(
                f"tensor {shown} does not say clearly where it lies",
                where=self.where,
                hint="it needs one location, and at most one offset and one length",
            )
        if tensor.data_type == T.STRING:
            raise CheckpointError(f"tensor {shown} holds texts, which cannot lie in another file", where=self.where)
        nbytes = byte_size(tensor)
        numbers = [entries.get("offset", "0"), entries.get("length", str(nbytes))]
        if not all(_NUMBER.fullmatch(number) for number in numbers):
            raise CheckpointError(
                f"tensor {shown} lies at offset {quoted(numbers[0])}, length {quoted(numbers[1])}", where=self.where
            )
        offset, length = map(int, numbers)
        if length != nbytes:
            raise CheckpointError(
                f"tensor {shown} has {length} bytes; its shape and type ask for {nbytes}", where=self.where
            )
        if fault := location_fault(entries["location"]):
            raise CheckpointError(
                f"tensor {shown} lies in {quoted(entries['location'])}, which {fault}", where=self.where
            )
        kind = (tensor.data_type, *tensor.dims)
        return ExternalRange(shown, plain_location(entries["location"]), offset, length, kind)


def check_ranges(ranges: list[ExternalRange], sizes: Mapping[str, int], *, where: str) -> None:
    """Raises CheckpointError unless all lie inside their files, of which `sizes` gives the bytes, and apart.

    Two tensors of one range, type and shape are fine: they are one weight under two names. Anything else that overlaps
    would be written once for each name, and a small file could ask for any number of bytes.
    """
    last: ExternalRange | None = None
    for entry in sorted(ranges, key=lambda entry: (entry.location, entry.offset, entry.length)):
        end, size = entry.offset + entry.length, sizes[entry.location]
        if end > size:
            raise CheckpointError(
                f"tensor {entry.tensor} ends at byte {end} of {quoted(entry.location)}, which has {size}",
                where=where,
                hint="is the download complete?",
            )
        if not entry.length:
            continue
        if last and replace(entry, tensor=last.tensor) == last:
            continue
        if last and last.location == entry.location and entry.offset < last.offset + last.length:
            raise CheckpointError(
                f"tensors {last.tensor} and {entry.tensor} overlap in {quoted(entry.location)}",
                where=where,
                hint="write them apart: onnx.save(onnx.load(path), another_path, save_as_external_data=True)",
            )
        last = entry


def shape_fault(dims: Any) -> str | None:
    """Why a list of sizes cannot be a shape, or None."""
    if len(dims) > MAX_RANK:
        return f"has {len(dims)} dimensions, more than the {MAX_RANK} allowed"
    for dim in dims:
        if not 0 <= dim <= MAX_DIMENSION:
            return f"has a dimension of {dim}, not 0 to {MAX_DIMENSION}"
    return None


def byte_size(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's values, as raw data or in another file; types of less than a byte are packed."""
    return (math.prod(tensor.dims) * BITS[tensor.data_type] + 7) // 8


def location_fault(location: str) -> str | None:
    """Why a file's name cannot be that of a file below the model's folder, or None."""
    if not location or len(location.encode()) > 1024 or not location.isprintable() or "\\" in location:
        return "is not the name of a file"
    if location.startswith("/") or ":" in location.split("/")[0]:
        return "is not relative to the model's folder"
    parts = location.split("/")
    if ".." in parts:
        return "leads out of the model's folder"
    return "is not the name of a file" if "" in parts or parts[-1] == "." else None


def plain_location(location: str) -> str:
    """The name of a file in which `location_fault` finds no fault, without the `./` that some exporters write."""
    return "/".join(part for part in location.split("/") if part != ".")


def quoted(text: str) -> str:
    """A name out of the file, safe to print: it may hold anything."""
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:80]}…"


def _size_fault(tensor: onnx.TensorProto) -> str | None:
    if tensor.data_type == T.STRING:
        return None
    if tensor.data_type not in BITS:
        return f"has the unknown type {tensor.data_type}"
    size = byte_size(tensor)
    return f"has {size} bytes, more than the {MAX_TENSOR_BYTES} allowed" if size > MAX_TENSOR_BYTES else None


def _data_fault(tensor: onnx.TensorProto) -> str | None:
    """Why the values in the file itself are not those of the declared shape."""
    if tensor.HasField("segment"):
        return "is only a segment of a tensor"
    if tensor.HasField("raw_data"):
        if tensor.data_type == T.STRING:
            return "holds texts as raw bytes"
        found, wanted, unit = len(tensor.raw_data), byte_size(tensor), "bytes"
    else:
        found = len(getattr(tensor, TYPED_FIELDS.get(tensor.data_type, "int32_data")))
        wanted, unit = _typed_count(tensor), "values"
    return None if found == wanted else f"has {found} {unit}; its shape and type ask for {wanted}"


def _typed_count(tensor: onnx.TensorProto) -> int:
    """How many numbers the typed field holds: two for a complex one, one for each byte of the small types."""
    elements = math.prod(tensor.dims)
    if tensor.data_type in (T.COMPLEX64, T.COMPLEX128):
        return 2 * elements
    return byte_size(tensor) if BITS.get(tensor.data_type, 8) < 8 else elements
