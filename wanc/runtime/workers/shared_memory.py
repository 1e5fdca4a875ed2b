"""Memory that several processes map: it has no name, and is gone with the last of them, however that ends.

Where a value lies in it, another process is told the block and the offset, and reads it there: nothing is copied.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable
from itertools import count
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..pool import PAGE, Empty
from ..value import Array, Value

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""Of a block's size: who maps memory that another process makes smaller is killed when it reads there."""
READ_WRITE, SHARED = 3, 1
"""PROT_READ | PROT_WRITE and MAP_SHARED of mmap(2)."""
FAILED = ctypes.c_void_p(-1).value

_numbers = count()


class SharedBlock:
    """Whole pages, mapped in this process until nobody holds this; `number` is this process's own for it."""

    __slots__ = ("__weakref__", "address", "descriptor", "number", "size")

    def __init__(self, descriptor: int, size: int) -> None:
        """Takes the descriptor over, of `size` bytes that are sealed. Raises MemoryError."""
        self.descriptor, self.size, self.number, self.address = descriptor, size, next(_numbers), 0
        self.address = _map(descriptor, size)

    @classmethod
    def make(cls, size: int) -> SharedBlock:
        """A new one, of zeros. Raises MemoryError where the system has none, or no descriptor for it."""
        try:
            descriptor = os.memfd_create("wanc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise MemoryError(f"shared memory of {size:,} bytes: {error.strerror}") from error
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
        except OSError as error:
            os.close(descriptor)
            raise MemoryError(f"shared memory of {size:,} bytes: {error.strerror}") from error
        return cls(descriptor, size)

    @classmethod
    def received(cls, descriptor: int, size: int) -> SharedBlock:
        """What another process has made; the descriptor is taken over. Raises ValueError where it is something else."""
        try:
            fits = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS and os.fstat(descriptor).st_size == size
        except OSError:  # it is no memory at all
            fits = False
        if not fits or not size:
            os.close(descriptor)
            raise ValueError(f"is no shared memory of {size:,} bytes")
        return cls(descriptor, size)

    def __del__(self) -> None:
        if self.address:
            _LIBRARY.munmap(self.address, self.size)
        os.close(self.descriptor)


class BlockPlace(NamedTuple):
    """Where an array without gaps lies: so many bytes behind the beginning of a block."""

    block: SharedBlock
    offset: int


def place_of(array: Array) -> BlockPlace | None:
    """Where an array, or what it is a view of, lies in shared memory; None where it lies elsewhere, or has gaps."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    block = getattr(base, "memory", None)
    if not isinstance(block, SharedBlock) or not array.flags.c_contiguous:
        return None
    return BlockPlace(block, array.ctypes.data - block.address)


def shared_copy(array: Array, empty: Empty) -> Array:
    """A copy of an array in memory of a pool of blocks, which knows no array of less than a page."""
    whole = empty((max(array.nbytes, PAGE),), np.uint8)
    copy = whole[: array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy


class SharedArray:
    """An array that lies in shared memory: `Value.held` keeps it, so that a value is copied there once."""

    def __init__(self, array: Array) -> None:
        self._array, self.shape, self.dtype, self.nbytes = array, array.shape, array.dtype, array.nbytes

    def numpy(self) -> Array:
        return self._array


def in_shared_memory(value: Value, empty: Empty) -> Array:
    """The value as an array that lies in shared memory; one that does not is copied, once for all who ask for it."""
    array = value.numpy()
    if place_of(array) is not None:
        return array
    return value.held(SharedArray, lambda array: SharedArray(shared_copy(array, empty))).numpy()


class _Loan:
    """Memory of another process that an array has, and every view of it; `on_end` is called when nobody has any."""

    __slots__ = ("__array_interface__", "_on_end", "memory")

    def __init__(
        self, place: BlockPlace, shape: tuple[int, ...], dtype: np.dtype[Any], on_end: Callable[[SharedBlock], object]
    ) -> None:
        self.memory, self._on_end = place.block, on_end
        data = (place.block.address + place.offset, False)
        self.__array_interface__ = {"version": 3, "typestr": dtype.str, "shape": shape, "data": data}

    def __del__(self) -> None:
        self._on_end(self.memory)


def lent_array(
    place: BlockPlace,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    on_end: Callable[[SharedBlock], object] = lambda _: None,
) -> Array:
    """An array that lies there, without a copy.

    Raises ValueError where it would reach beyond the block, or numbers would not lie at multiples of their size.
    """
    size = prod(shape) * dtype.itemsize
    if place.offset < 0 or place.offset + size > place.block.size or place.offset % dtype.itemsize:
        raise ValueError(f"{size:,} bytes at {place.offset:,} do not lie in a block of {place.block.size:,}")
    return np.asarray(_Loan(place, shape, dtype, on_end))


_LIBRARY = ctypes.CDLL(None, use_errno=True)
# Python's own mmap holds a second descriptor of each block.
_LIBRARY.mmap.restype = ctypes.c_void_p
_LIBRARY.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_LIBRARY.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def _map(descriptor: int, size: int) -> int:
    address = _LIBRARY.mmap(None, size, READ_WRITE, SHARED, descriptor, 0)
    if address is None or address == FAILED:
        raise MemoryError(f"{size:,} bytes cannot be mapped: {os.strerror(ctypes.get_errno())}")
    return int(address)
