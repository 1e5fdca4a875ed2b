"""What goes into a graph and comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from .errors import TargetError

Array = np.ndarray[Any, Any]


class Value:
    """One input or output. What it is made of is the back end's affair: who only hands it on never asks for `numpy()`.

    Of an engine on a CPU it is an array. `dtype` is numpy's.
    """

    __slots__ = ("_array",)

    def __init__(self, array: Array) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array.dtype

    @property
    def bytes(self) -> int:
        """How many there are."""
        return self._array.nbytes

    def numpy(self) -> Array:
        """The value as an array, which nobody may write to."""
        return self._array

    def __repr__(self) -> str:
        return f"Value({self.dtype.name} {list(self.shape)})"


def expect(value: Value, name: str, shape: tuple[int | None, ...]) -> Array:
    """A float32 value of this shape, None for any size, as an array.

    Raises TargetError for another: then an engine is not what the bundle says of it.
    """
    fits = len(value.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(value.shape, shape, strict=True)
    )
    if value.dtype != np.float32 or not fits:
        wanted = ", ".join("?" if size is None else str(size) for size in shape)
        raise TargetError(f"an engine gives {name} as {value.dtype.name} {list(value.shape)}, not float32 [{wanted}]")
    return value.numpy()


Given: TypeAlias = Array | Value
"""What may be given to a graph."""


def as_array(given: Given) -> Array:
    """An array, wherever the value is."""
    return given.numpy() if isinstance(given, Value) else given


def as_values(arrays: Mapping[str, Array]) -> dict[str, Value]:
    """Arrays, by name, as values."""
    return {name: Value(array) for name, array in arrays.items()}
