"""What a report that was stopped had measured: the next one of the same bundle goes on from there.

It lies in the store's scratch, a folder for each bundle, reference, machine and wanc, until the report is written.
Times are not kept: those of one report are of one run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wanc.artifacts.canonical import key_of
from wanc.artifacts.kept import forget_damaged, keep
from wanc.artifacts.locks import release, try_lock
from wanc.artifacts.store import Store
from wanc.report.document import SCHEMA, Cohort
from wanc.runtime import safetensors
from wanc.runtime.safetensors import SafetensorsFile

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measurements:
    """Of one bundle: a file for each thing that was measured, in `folder`; without one nothing is kept."""

    folder: Path | None

    def arrays(self, name: str, measure: Callable[[], Mapping[str, Array]]) -> Mapping[str, Array]:
        """What was measured under this name, or is measured now. Raises OutputError, and what `measure` raises."""
        if self.folder is None:
            return measure()
        path = self.folder / f"{name}.safetensors"
        forget_damaged(path)
        if not path.exists():
            measured = measure()
            keep(path, lambda place: safetensors.write(place, measured))
        return SafetensorsFile(path)


NOTHING_KEPT = Measurements(None)


class Unfinished:
    """Measurements of all bundles of a report, held against other reports for as long as it is open."""

    def __init__(self, store: Store, code: str, held: ExitStack) -> None:
        self._store, self._code, self._held = store, code, held
        self._keys: list[str] = []

    @classmethod
    @contextmanager
    def opened(cls, store: Store, code: str) -> Generator[Unfinished]:
        """`code` is the version of what measures: what another one has measured is not gone on with."""
        with ExitStack() as held:
            yield cls(store, code, held)

    def of(self, bundle: str, reference: str, machine: Cohort) -> Measurements:
        """Those of a bundle by its id, at a reference by its key; not kept where another report measures the same."""
        facts = {"bundle": bundle, "reference": reference, "machine": machine.model_dump(mode="json")}
        key = key_of({"report": SCHEMA, "code": self._code, **facts})
        if key in self._keys:
            return NOTHING_KEPT
        lock = try_lock(self._store.root / "locks" / key)
        if lock is None:
            return NOTHING_KEPT
        self._held.callback(release, lock)
        self._keys.append(key)
        return Measurements(self._store.scratch(key))

    def finish(self) -> None:
        """The report is written: nothing of it is left to go on with. Raises OutputError."""
        for key in self._keys:
            self._store.drop_scratch(key)
