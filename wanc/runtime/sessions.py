"""Executing graphs: one session per engine file, opened when first used, with every execution counted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from .backends.base import NAMES, Backend, open_backend
from .cores import available_cores
from .errors import TargetError, UserError

Array = np.ndarray[Any, Any]

MOST_LANES = 2
"""Executions of one graph at once: guidance has two branches."""


@dataclass
class Counter:
    """What one graph has cost: executions, bytes of inputs and outputs, seconds inside the engine (of all lanes)."""

    executions: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Session:
    """One engine file, with the library that executes it; `backend` is that file if it is open already.

    `lanes` threads may call `run` at once.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        lanes: int = 1,
        counter: Counter | None = None,
        backend: Backend | None = None,
    ) -> None:
        self._path, self._engine = str(path), NAMES.get(path.suffix, path.suffix)
        try:
            self._backend = backend or open_backend(path, threads, lanes)
        except ModuleNotFoundError as error:
            raise TargetError(
                f"the package {error.name} is missing", hint="pip install -r requirements.txt, which the bundle has"
            ) from None
        except Exception as error:  # the libraries' exceptions share no base class
            raise TargetError(f"{self._engine} cannot load this engine", where=self._path) from error
        self._counter = counter or Counter()
        self._lock = Lock()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Execute the graph once. Inputs and outputs by name. Raises TargetError where the engine fails."""
        started = time.perf_counter()
        try:
            outputs = self._backend.run(inputs)
        except Exception as error:  # as above
            raise TargetError(f"{self._engine} cannot execute this graph on these inputs", where=self._path) from error
        seconds = time.perf_counter() - started
        with self._lock:
            self._counter.seconds += seconds
            self._counter.executions += 1
            self._counter.bytes += sum(array.nbytes for array in (*inputs.values(), *outputs))
        return dict(zip(self._backend.outputs, outputs, strict=True))


class Sessions:
    """The open sessions of a bundle, by (component, graph)."""

    def __init__(self, files: Mapping[tuple[str, str], Path], *, threads: int = 0) -> None:
        if threads < 0:
            raise UserError(f"{threads} threads", hint="ask for 1 or more, or 0 for every core")
        self._files = files
        self._threads = threads
        self._open: dict[tuple[str, str], Session] = {}
        self._counters: dict[tuple[str, str], Counter] = {}
        self._executor = ThreadPoolExecutor(MOST_LANES)

    def run(self, component: str, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Execute a component's graph once, opening its session if need be. Raises TargetError where it has none."""
        return self.get(component, graph).run(inputs)

    def run_together(self, component: str, graph: str, inputs: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Execute a graph once for each of these inputs, in lanes that share the threads.

        Threads that work on graphs of their own wait for each other less often than those that share one.
        """
        lanes = min(len(inputs), self._threads or available_cores(), MOST_LANES)
        session = self.get(component, graph, lanes=lanes)
        return list(self._executor.map(session.run, inputs) if lanes > 1 else map(session.run, inputs))

    def get(self, component: str, graph: str, *, lanes: int = 1) -> Session:
        """The session of a component's graph, opened on first use for so many executions at once."""
        key = (component, graph)
        if key not in self._open:
            path, counter = self.file(component, graph), self._counters.setdefault(key, Counter())
            self._open[key] = Session(path, threads=self._threads, lanes=lanes, counter=counter)
        return self._open[key]

    def file(self, component: str, graph: str) -> Path:
        """The engine file of a component's graph. Raises TargetError where there is none."""
        if (component, graph) not in self._files:
            raise TargetError(f"this bundle has no engine for {component}/{graph}")
        return self._files[component, graph]

    def close(self, component: str) -> None:
        """Free a component's sessions and their weights; its counters stay."""
        for key in [key for key in self._open if key[0] == component]:
            del self._open[key]

    def counters(self) -> dict[str, dict[str, int | float]]:
        """`<component>/<graph>` → executions, bytes, seconds, since the sessions were made."""
        return {"/".join(key): asdict(counter) for key, counter in self._counters.items()}


def flat(counters: Mapping[str, Mapping[str, int | float]]) -> dict[str, int | float]:
    """`<component>/<graph>.<counter>` → its value, as reports have it."""
    return {f"{graph}.{name}": value for graph, counter in counters.items() for name, value in counter.items()}
