"""What is known of every sample between two segments: on disk, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Sample = Callable[[], Mapping[str, Array]]
"""One execution to learn from: the inputs of the whole graph, made when they are needed."""


class SampleStates:
    """The samples' values by name: the graph's inputs, made anew when they are asked for, and what segments gave."""

    def __init__(self, samples: Sequence[Sample], folder: Path) -> None:
        self._samples, self._folder = samples, folder
        self._names: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, number: int, names: Iterable[str]) -> dict[str, Array]:
        """Some values of a sample."""
        stored = {name: np.load(self._path(number, name)) for name in names if name in self._names}
        missing = [name for name in names if name not in stored]
        given = self._samples[number]() if missing else {}
        return {**stored, **{name: given[name] for name in missing}}

    def write(self, number: int, values: Mapping[str, Array]) -> None:
        """Keep what a segment gave."""
        for name, array in values.items():
            if name not in self._names:
                self._names[name], self._count = self._count, self._count + 1
            np.save(self._path(number, name), array)

    def keep_only(self, names: Collection[str]) -> None:
        """Forget what no later segment takes."""
        for name in [name for name in self._names if name not in names]:
            for number in range(len(self)):
                self._path(number, name).unlink()
            del self._names[name]

    def _path(self, number: int, name: str) -> Path:
        return self._folder / f"{number}-{self._names[name]}.npy"
