"""Arrays that numpy takes memory for, noted one by one: numpy lets its allocator be exchanged (NEP 49)."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import numpy as np

_SET_HANDLER = 304
"""The place of PyDataMem_SetHandler in numpy's table of functions."""
_LIBC = ctypes.CDLL(None)
_SIZE, _POINTER = ctypes.c_size_t, ctypes.c_void_p
for _name, _takes in (("malloc", 1), ("calloc", 2), ("realloc", 2), ("free", 1)):
    getattr(_LIBC, _name).restype = _POINTER
    getattr(_LIBC, _name).argtypes = [_POINTER if _name in ("realloc", "free") else _SIZE, _SIZE][:_takes]


@dataclass(frozen=True)
class Allocation:
    """How many bytes, and where in Python's code."""

    bytes: int
    where: str


_notes: list[list[Allocation]] = []


def _note(size: int) -> None:
    frame: FrameType | None = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    lines = []
    while frame is not None and len(lines) < 4:
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    for note in _notes:
        note.append(Allocation(size, " < ".join(lines)))


@ctypes.CFUNCTYPE(_POINTER, _POINTER, _SIZE)
def _malloc(_: int, size: int) -> int:
    _note(size)
    return _LIBC.malloc(size)


@ctypes.CFUNCTYPE(_POINTER, _POINTER, _SIZE, _SIZE)
def _calloc(_: int, count: int, size: int) -> int:
    _note(count * size)
    return _LIBC.calloc(count, size)


@ctypes.CFUNCTYPE(_POINTER, _POINTER, _POINTER, _SIZE)
def _realloc(_: int, pointer: int, size: int) -> int:
    _note(size)
    return _LIBC.realloc(pointer, size)


@ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _SIZE)
def _free(_: int, pointer: int, size: int) -> None:
    _LIBC.free(pointer)


class _Handler(ctypes.Structure):
    """numpy's PyDataMem_Handler, whose last five fields are its PyDataMemAllocator."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", _POINTER),
        ("malloc", type(_malloc)),
        ("calloc", type(_calloc)),
        ("realloc", type(_realloc)),
        ("free", type(_free)),
    )


# Arrays are freed by what they were made by: it stays as long as the process.
_HANDLER = _Handler(b"counting", 1, None, _malloc, _calloc, _realloc, _free)


def _set_handler(capsule: object) -> object:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = _POINTER, [ctypes.py_object, ctypes.c_char_p]
    table = pointer(np._core._multiarray_umath._ARRAY_API, None)  # type: ignore[attr-defined]
    entry = ctypes.cast(table, ctypes.POINTER(_POINTER))[_SET_HANDLER]
    assert entry is not None
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(entry)(capsule)


@contextmanager
def allocations() -> Generator[list[Allocation]]:
    """`with allocations() as found:` what numpy takes memory for in this thread, each time."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [_POINTER, ctypes.c_char_p, _POINTER]
    before = _set_handler(new(ctypes.addressof(_HANDLER), b"mem_handler", None))
    found: list[Allocation] = []
    _notes.append(found)
    try:
        yield found
    finally:
        _notes.remove(found)
        _set_handler(before)
