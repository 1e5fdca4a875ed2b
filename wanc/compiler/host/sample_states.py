"""What is known of every sample between two segments: on disk, so that memory does not grow with their number.

The folder may be that of a stage that resumes (see `artifacts.kept`): who opens it again goes on behind the last
segment that all samples have passed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wanc.artifacts.canonical import canonical
from wanc.artifacts.kept import drop, forget_damaged, keep
from wanc.compiler.host.past import Pasts

Array = np.ndarray[Any, Any]
Sample = Callable[[], Mapping[str, Array]]
"""One execution to learn from: the inputs of the whole graph, made when they are needed."""
NOTE = "samples.json"
"""How many segments all samples have passed, and the number by which files know each value behind them."""


class SampleStates:
    """The samples' values by name: the graph's inputs, made anew when they are asked for, and what segments gave.

    All samples have `passed` so many segments. `pasts` are what they leave to each other, of a causal expert.
    """

    def __init__(self, samples: Sequence[Sample], folder: Path, pasts: Pasts | None = None) -> None:
        self._samples, self._folder, self.pasts = samples, folder, pasts
        self.passed, self._count = 0, 0
        self._names: dict[str, int] = {}
        self._resume()

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, number: int, names: Iterable[str]) -> dict[str, Array]:
        """Some values of a sample."""
        stored = {name: np.load(self._path(number, name)) for name in names if name in self._names}
        missing = [name for name in names if name not in stored]
        given = self._samples[number]() if missing else {}
        return {**stored, **{name: given[name] for name in missing}}

    def write(self, number: int, values: Mapping[str, Array]) -> None:
        """Keep what a segment gave. Raises OutputError."""
        for name, array in values.items():
            if name not in self._names:
                self._names[name], self._count = self._count, self._count + 1
            keep(self._path(number, name), lambda place, array=array: _save(place, array))

    def pass_segment(self, names: Collection[str]) -> None:
        """All samples are behind one more segment, and forget what no later one takes. Raises OutputError."""
        self.passed += 1
        self._names = {name: index for name, index in self._names.items() if name in names}
        note = canonical({"passed": self.passed, "count": self._count, "names": {**self._names}})
        keep(self._folder / NOTE, lambda place: place.write_bytes(note))
        self._forget_others()

    def start_over(self) -> None:
        """Take all samples before the first segment again."""
        self.passed, self._count, self._names = 0, 0, {}
        drop(self._folder / NOTE)
        self._forget_others()

    def _resume(self) -> None:
        note = self._folder / NOTE
        forget_damaged(note)
        if note.exists():
            found = json.loads(note.read_bytes())
            self.passed, self._count, self._names = found["passed"], found["count"], found["names"]
        for path in self._paths():
            forget_damaged(path)
        if all(path.exists() for path in self._paths()):
            self._forget_others()
        else:
            self.start_over()

    def _forget_others(self) -> None:
        """Remove the files of values that are no longer known, or not yet of all samples."""
        for path in set(self._folder.glob("state-*.npy")) - self._paths():
            drop(path)

    def _paths(self) -> set[Path]:
        return {self._path(number, name) for number in range(len(self)) for name in self._names}

    def _path(self, number: int, name: str) -> Path:
        return self._folder / f"state-{number}-{self._names[name]}.npy"


def _save(path: Path, array: Array) -> None:
    with path.open("wb") as file:  # given a path, numpy would choose its suffix
        np.save(file, array)
