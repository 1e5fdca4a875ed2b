"""What engine files have given for which inputs: a process that gives something else does not compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TypeAlias

from ..engine_file import EngineFile
from ..value import Array

MOST = 1024
"""Kept at once: a bundle has far fewer files times shapes."""

Shapes: TypeAlias = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, dtype and shape of each value."""


class KnownShapes:
    """Several threads may call its method at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[EngineFile, Shapes], Shapes] = {}
        self._lock = Lock()

    def fault(self, file: EngineFile, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> str | None:
        """What is wrong with outputs that a file gives for inputs of these shapes, None where that is nothing.

        They have to be exactly those that the file gives, as it has given them before.
        """
        if set(outputs) != set(file.outputs):
            return f"are {', '.join(sorted(outputs))[:200]}, not {', '.join(sorted(file.outputs))}"
        given = _shapes_of(outputs)
        with self._lock:
            while len(self._known) >= MOST:
                del self._known[next(iter(self._known))]
            known = self._known.setdefault((file, _shapes_of(inputs)), given)
        for (name, dtype, shape), (_, known_dtype, known_shape) in zip(given, known, strict=True):
            if (dtype, shape) != (known_dtype, known_shape):
                return f"hold {name} as {dtype} {list(shape)}, which was {known_dtype} {list(known_shape)} before"
        return None


def _shapes_of(arrays: Mapping[str, Array]) -> Shapes:
    return tuple((name, arrays[name].dtype.name, arrays[name].shape) for name in sorted(arrays))
