"""Executing graphs: a session per engine file, opened when first used, with every execution counted."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from threading import Lock

from .cores import available_cores
from .engine_file import CUDA, EngineFile, Key
from .errors import TargetError, UserError
from .folder import PlainFolder
from .segments import Segments
from .session import Session
from .value import Given, Value, as_value, as_values
from .voice import explain

MOST_LANES = 2
"""Executions of one graph at once: guidance has two branches."""


@dataclass
class Counter:
    """What one graph has cost: executions, bytes of inputs and outputs, seconds inside the engine (of all lanes)."""

    executions: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Executor:
    """What a bundle's engines compute, by (component, graph)."""

    def __init__(
        self,
        folder: PlainFolder,
        engines: Mapping[Key, Segments],
        *,
        threads: int = 0,
        thrifty: Collection[str] = (),
    ) -> None:
        """The engines' files lie in `folder`; `thrifty` are components whose engines keep no memory between executions.

        Raises UserError for a number of threads that there cannot be.
        """
        if threads < 0:
            raise UserError(f"{threads} threads", hint="ask for 1 or more, or 0 for every core")
        self._folder, self._engines, self._threads, self._thrifty = folder, engines, threads, thrifty
        self._open: dict[Key, list[Session]] = {}
        self._counters: dict[Key, Counter] = {}
        self._lock = Lock()
        self._lanes = ThreadPoolExecutor(MOST_LANES)

    def run(self, component: str, graph: str, inputs: Mapping[str, Given]) -> dict[str, Value]:
        """Execute a component's graph once, opening its files if need be. Inputs and outputs by name.

        Raises TargetError where there is none, where it takes other inputs, and where its engine fails.
        """
        self.open(component, graph)
        return self._execute((component, graph), inputs)

    def run_together(self, component: str, graph: str, inputs: Sequence[Mapping[str, Given]]) -> list[dict[str, Value]]:
        """Execute a graph once for each of these inputs, in lanes that share the threads.

        Threads that work on graphs of their own wait for each other less often than those that share one. A GPU is
        busy with one execution, and would need the memory of all.
        """
        key = (component, graph)
        is_on_gpu = key in self._engines and self._engines[key].files[0].target == CUDA
        lanes = 1 if is_on_gpu else min(len(inputs), self._threads or available_cores(), MOST_LANES)
        self.open(component, graph, lanes=lanes)
        execute = partial(self._execute, key)
        # What several of them are given is one value: a device has one copy of it.
        known: dict[int, Value] = {}
        values = [
            {name: known.setdefault(id(given), as_value(given)) for name, given in entry.items()} for entry in inputs
        ]
        return list(self._lanes.map(execute, values) if lanes > 1 else map(execute, values))

    def open(self, component: str, graph: str, *, lanes: int = 1) -> None:
        """Open a graph's files for so many executions at once, unless they are open already. Raises TargetError."""
        key = (component, graph)
        if key not in self._open:
            if key not in self._engines:
                raise TargetError(f"this bundle has no engine for {component}/{graph}")
            self._open[key] = [self._session(file, lanes) for file in self._engines[key].files]
            self._counters.setdefault(key, Counter())

    def close(self, component: str) -> None:
        """Free a component's sessions and their weights; its counters stay."""
        for key in [key for key in self._open if key[0] == component]:
            del self._open[key]

    def counters(self) -> dict[str, dict[str, int | float]]:
        """`<component>/<graph>` → executions, bytes, seconds, since the executor was made."""
        return {"/".join(key): asdict(counter) for key, counter in self._counters.items()}

    def _session(self, file: EngineFile, lanes: int) -> Session:
        shown, started = self._folder.shown(file.file), time.perf_counter()
        session = self._folder.read(
            file.file,
            lambda path: Session(
                file.engine,
                path,
                threads=self._threads,
                lanes=lanes,
                shown=shown,
                target=file.target,
                thrifty=file.component in self._thrifty,
            ),
        )
        explain(f"opened {shown} with {file.engine} in {time.perf_counter() - started:.2f} s")
        if absent := set(file.outputs) - set(session.outputs):
            raise TargetError(f"gives no {min(absent)}, which its entry in the manifest names", where=shown)
        return session

    def _execute(self, key: Key, inputs: Mapping[str, Given]) -> dict[str, Value]:
        segments, sessions = self._engines[key], self._open[key]
        if set(inputs) != set(segments.inputs):
            raise TargetError(
                f"{'/'.join(key)} is given {', '.join(sorted(inputs)) or 'nothing'}",
                hint=f"it takes {', '.join(sorted(segments.inputs)) or 'nothing'}",
            )
        values = {name: as_value(given) for name, given in inputs.items()}
        size = sum(value.bytes for value in values.values())
        started = time.perf_counter()
        for session, file, dropped in zip(sessions, segments.files, segments.dropped, strict=True):
            values |= as_values(session.run({name: values[name] for name in file.inputs}))
            for name in dropped:
                del values[name]
        seconds = time.perf_counter() - started
        outputs = {name: values[name] for name in segments.outputs}
        with self._lock:
            counter = self._counters[key]
            counter.seconds += seconds
            counter.executions += 1
            counter.bytes += size + sum(value.bytes for value in outputs.values())
        return outputs
