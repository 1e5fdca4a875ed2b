"""How large values become that attentions take: of each the largest magnitude in all samples, kept piece by piece."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wanc.artifacts.canonical import canonical
from wanc.artifacts.kept import forget_damaged, keep
from wanc.errors import UserError

Array = np.ndarray[Any, Any]


class KeptRanges:
    """The magnitudes in a folder of a stage that resumes (see `artifacts.kept`).

    `pieces` has for each piece of a chain the names of the values that it is the first to know.
    """

    def __init__(self, folder: Path, pieces: Sequence[Sequence[str]]) -> None:
        self._folder, self._pieces = folder, pieces
        self._seen = [dict.fromkeys(names, 0.0) for names in pieces]

    def has(self, index: int) -> bool:
        """Whether those of a piece are known; what is damaged is removed, and said to be."""
        forget_damaged(self._path(index))
        return not self._pieces[index] or self._path(index).exists()

    def observe(self, index: int, values: Mapping[str, Array]) -> None:
        """Look at a sample's values, of any shape, in a piece. Raises UserError where one is not finite."""
        for name, seen in self._seen[index].items():
            peak = float(np.abs(values[name]).max(initial=0.0))
            if not np.isfinite(peak):
                raise UserError(
                    f"{name}, which an attention takes, is not finite in a sample",
                    hint="the float model itself overflows there: quantisation cannot mend that",
                )
            self._seen[index][name] = max(peak, seen)

    def keep(self, index: int) -> None:
        """Write what was seen of a piece, behind its last sample. Raises OutputError."""
        if self._pieces[index]:
            document = canonical(dict(self._seen[index]))
            keep(self._path(index), lambda place: place.write_bytes(document))

    def read(self) -> dict[str, float]:
        """The magnitudes of all pieces, by the values' names."""
        kept = [self._path(index) for index, names in enumerate(self._pieces) if names]
        return {name: peak for path in kept for name, peak in json.loads(path.read_bytes()).items()}

    def _path(self, index: int) -> Path:
        return self._folder / f"range-{index:04}.json"
