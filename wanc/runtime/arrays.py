"""Arrays in .npz and .npy files: a reader that trusts nothing in the file, and a writer whose file is whole or absent.

An .npz file is a zip archive of .npy members (numpy.org/doc/stable/reference/generated/numpy.lib.format.html). numpy's
own reader allocates what a header asks for, takes the last of two members of one name, and may unpickle. Here headers
are matched with a pattern, and every size is compared with what the graph declares before anything is allocated.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np

from .destination import reporting
from .dimensions import MOST_DIMENSIONS
from .errors import EXIT_NO_INPUT
from .interface import TASK, InputError, Interface
from .suffixes import WHAT
from .whole_file import whole_file

Array = np.ndarray[Any, Any]
CheckHeader = Callable[[str, tuple[int, ...]], None]
"""Is told an array's dtype and shape, and raises what it has against them."""

OUTPUTS = WHAT[TASK]
MAX_TOTAL_BYTES = 4 * 2**30
"""Of all arrays of a file together, uncompressed."""
MAX_MEMBERS = 4096
# The format pads headers to 64 bytes; 128 hold any array of 8 dimensions that has no fields.
MAX_HEADER_BYTES = 1024
CHUNK_BYTES = 2**20
MAX_DIRECTORY_BYTES = 4 * 2**20
"""Of an archive: its list of members, which is read at once."""
# Deflate cannot do better (zlib.net/zlib_tech.html): a member that claims to is lying about its size.
MOST_COMPRESSION = 1032

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z][0-9]*)', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,18}, ?)*(?:[0-9]{1,18})?)\),? ?\} *\n"
)


# What zipfile raises: for names and offsets that make no sense ValueError and OSError, for encryption RuntimeError.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


@dataclass(frozen=True)
class _Described:
    """One array, described and not yet read: its bytes begin at `offset` of its file, whose size fits them."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    def read(self, stream: IO[bytes]) -> Array:
        """The values that follow in the stream. Memory is taken as they come: what is allocated is not touched before.

        Raises InputError where this machine has not that much.
        """
        try:
            array = np.empty(self.shape, self.dtype, order="F" if self.fortran else "C")
        except MemoryError:
            size = math.prod(self.shape) * self.dtype.itemsize
            raise InputError(f"an array takes {size} bytes, which this machine does not have") from None
        _fill(stream, memoryview(cast("Any", array.reshape(-1, order="A").view(np.uint8))))
        return array


@dataclass(frozen=True)
class _Member(_Described):
    """An array of an archive."""

    info: zipfile.ZipInfo


def any_header(dtype: str, shape: tuple[int, ...]) -> None:
    """Has nothing against any array."""


def read_array(path: Path, check: CheckHeader = any_header) -> Array:
    """The one array of an .npy file; `check` is told what it is before its values are read.

    Raises InputError where the file is not one of plain numbers, exit code 66 where there is none, and what `check`
    raises.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            if size > MAX_TOTAL_BYTES:
                raise InputError(f"{size} bytes, more than the {MAX_TOTAL_BYTES} allowed")
            described = _described(file, size, ascii(path.stem)[:80])
            check(described.dtype.name, described.shape)
            return described.read(file)
        except InputError as error:
            error.where = str(path)
            raise
        except _UNREADABLE as error:
            raise InputError("not a readable .npy file", where=str(path)) from error


def read_arrays(path: Path, interface: Interface) -> dict[str, Array]:
    """The inputs of a graph, by name.

    Raises InputError where the file is not an .npz file of exactly these inputs, with the declared dtypes and shapes,
    and exit code 66 where there is none.
    """
    with _opened(path) as file:
        try:
            with zipfile.ZipFile(cast("IO[bytes]", _Pieces(file))) as archive:
                members = _members(archive, os.fstat(file.fileno()).st_size)
                interface.check({name: (member.dtype.name, member.shape) for name, member in members.items()})
                return {name: _read(archive, member) for name, member in members.items()}
        except InputError as error:
            error.where = str(path)
            raise
        except _UNREADABLE as error:
            raise InputError("not a readable .npz file", where=str(path)) from error


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays into an uncompressed .npz file, which appears only when it is complete.

    The same arrays give the same bytes. Raises what `whole_file` raises.
    """
    with (
        whole_file(path, OUTPUTS) as file,
        reporting(path, OUTPUTS),
        zipfile.ZipFile(file, "w", allowZip64=True) as archive,
    ):
        for name, array in arrays.items():
            # A ZipInfo of its own has no date but 1980's.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), version=(1, 0), allow_pickle=False)


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    try:
        if path.exists() and not path.is_file():  # a FIFO would be waited for
            raise InputError("is not a file", where=str(path), exit_code=EXIT_NO_INPUT)
        file = path.open("rb")
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), exit_code=EXIT_NO_INPUT) from error
    except OSError as error:
        raise InputError("cannot be read", where=str(path), exit_code=EXIT_NO_INPUT) from error
    with file:
        yield file


class _Pieces:
    """An archive's file, of which nobody asks for much at once; `zipfile` would take a directory of gigabytes whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise InputError(f"{size} bytes of names, more than the {MAX_DIRECTORY_BYTES} allowed")
        return self._file.read(size)


def _members(archive: zipfile.ZipFile, file_size: int) -> dict[str, _Member]:
    entries = archive.infolist()
    if len(entries) > MAX_MEMBERS:
        raise InputError(f"{len(entries)} arrays, more than the {MAX_MEMBERS} allowed")
    if (total := sum(info.file_size for info in entries)) > MAX_TOTAL_BYTES:
        raise InputError(f"{total} bytes of arrays, more than the {MAX_TOTAL_BYTES} allowed")
    if any(info.header_offset + info.compress_size > file_size for info in entries):
        raise InputError("ends before its arrays do")
    members: dict[str, _Member] = {}
    for info in entries:
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise InputError(f"the member {ascii(name)[:80]} is not an array: its name does not end in .npy")
        if name in members:
            raise InputError(f"holds two arrays called {ascii(name)[:80]}")
        members[name] = _member(archive, info, ascii(name)[:80])
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, shown: str) -> _Member:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"the array {shown} is compressed in another way than numpy does")
    if info.file_size > MOST_COMPRESSION * (info.compress_size + 1):
        raise InputError(f"the array {shown} claims {info.file_size} bytes out of {info.compress_size}")
    with archive.open(info) as stream:
        described = _described(stream, info.file_size, shown)
    return _Member(described.dtype, described.shape, described.fortran, described.offset, info)


def _described(stream: IO[bytes], file_size: int, shown: str) -> _Described:
    """What the header at the beginning of a stream of `file_size` bytes says; the values follow it."""
    prefix = stream.read(len(_MAGIC) + 2)
    length = int.from_bytes(prefix[len(_MAGIC) :], "little")
    if prefix[: len(_MAGIC)] != _MAGIC or length > MAX_HEADER_BYTES:
        raise InputError(f"the array {shown} is not in numpy's format 1.0")
    header = _HEADER.fullmatch(stream.read(length))
    if not header:
        raise InputError(f"the array {shown} is not one of plain numbers")
    dtype, shape = _dtype(header[1], shown), tuple(int(size) for size in re.findall(rb"[0-9]+", header[3]))
    offset = len(prefix) + length
    needed = offset + math.prod(shape) * dtype.itemsize
    if file_size != needed:
        raise InputError(f"the array {shown} has {file_size} bytes; {dtype.name} {list(shape)} takes {needed}")
    # A zero among the sizes must not hide others that no array can have.
    if len(shape) > MOST_DIMENSIONS or math.prod(size or 1 for size in shape) * dtype.itemsize > MAX_TOTAL_BYTES:
        raise InputError(
            f"the array {shown} is {dtype.name} {list(shape)}, more than the {MAX_TOTAL_BYTES} bytes allowed"
        )
    return _Described(dtype, shape, header[2] == b"True", offset)


def _dtype(description: bytes, shown: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(description.decode())
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in "biuf" or not dtype.isnative:
        raise InputError(f"the array {shown} has the dtype {description.decode()!a}, which no graph takes")
    return dtype


def _read(archive: zipfile.ZipFile, member: _Member) -> Array:
    with archive.open(member.info) as stream:
        stream.read(member.offset)
        array = member.read(stream)
        stream.read(1)  # reaching the end is what makes zipfile compare the checksum
    if member.dtype == np.bool_ and np.any(array.view(np.uint8) > 1):
        raise InputError("an array of truth values holds other values than 0 and 1")
    return array


def _fill(stream: IO[bytes], target: memoryview) -> None:
    position = 0
    while position < len(target):
        piece = stream.read(min(CHUNK_BYTES, len(target) - position))
        if not piece:
            raise EOFError("an array ends before its values do")
        target[position : position + len(piece)] = piece
        position += len(piece)
