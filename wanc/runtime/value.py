"""What goes into a graph and comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from .errors import TargetError

Array = np.ndarray[Any, Any]


class Held(Protocol):
    """A value where a back end has it, such as a GPU's memory. `dtype` is numpy's."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def nbytes(self) -> int: ...

    def numpy(self) -> Array:
        """A copy of it as an array."""
        ...


H = TypeVar("H", bound=Held)


class Value:
    """One input or output. What it is made of is the back end's affair: who only hands it on never asks for `numpy()`.

    Of an engine on a CPU it is an array. `dtype` is numpy's.
    """

    __slots__ = ("_array", "_held")

    def __init__(self, content: Array | Held) -> None:
        self._array = content if isinstance(content, np.ndarray) else None
        self._held = None if isinstance(content, np.ndarray) else content

    @property
    def shape(self) -> tuple[int, ...]:
        return self._content.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._content.dtype

    @property
    def bytes(self) -> int:
        """How many there are."""
        return self._content.nbytes

    def numpy(self) -> Array:
        """The value as an array, which nobody may write to. What a back end holds is copied here once."""
        if self._array is None:
            assert self._held is not None
            self._array = self._held.numpy()
        return self._array

    def held(self, kind: type[H], place: Callable[[Array], H]) -> H:
        """The value where a back end has its own `kind`: an array is placed there once, however often it is given."""
        if not isinstance(self._held, kind):
            self._held = place(self.numpy())
        return self._held

    @property
    def _content(self) -> Array | Held:
        content = self._held if self._array is None else self._array
        assert content is not None
        return content

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


def is_finite(array: Array) -> bool:
    """Whether floats hold no NaN and no infinity; nothing of their size is made on the way."""
    # The least and the largest are NaN where any is.
    return not array.size or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


Given: TypeAlias = Array | Value
"""What may be given to a graph."""


def as_array(given: Given) -> Array:
    """An array, wherever the value is."""
    return given.numpy() if isinstance(given, Value) else given


def as_value(given: Given) -> Value:
    """A value, if it is not one already."""
    return given if isinstance(given, Value) else Value(given)


def as_values(given: Mapping[str, Given]) -> dict[str, Value]:
    """Arrays, by name, as values."""
    return {name: as_value(entry) for name, entry in given.items()}
