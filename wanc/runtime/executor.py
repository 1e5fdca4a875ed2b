"""Executing graphs: a session per engine file, opened as the residency has it, with every execution counted."""

from __future__ import annotations

import time
import weakref
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import asdict, dataclass
from threading import Lock

from .checkpoint import checkpoint
from .cores import available_cores, cores_here, keep_on, threads_here
from .engine_file import CUDA, EngineFile, Key
from .errors import TargetError, UserError
from .events import EXECUTIONS, GRAPH_BYTES, LOADS, count, span
from .folder import PlainFolder
from .read_ahead import read_through
from .residency import Residency
from .segments import Segments
from .session import Session
from .uses import GraphUse
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


@dataclass(frozen=True)
class Opening:
    """How a graph's files are opened: for so many executions at once, on these processors and so many threads."""

    lanes: int
    threads: int
    cores: frozenset[int]


class Executor:
    """What a bundle's engines compute, by (component, graph)."""

    def __init__(
        self,
        folder: PlainFolder,
        engines: Mapping[Key, Segments],
        *,
        threads: int = 0,
        budget: int | None = None,
        thrifty: Collection[str] = (),
    ) -> None:
        """The engines' files lie in `folder`; `budget` is what open files and reserved values may take, in bytes.

        `thrifty` are components whose engines keep no memory between executions; where there is a budget, all are.

        Raises UserError for a number of threads that there cannot be.
        """
        if threads < 0:
            raise UserError(f"{threads} threads", hint="ask for 1 or more, or 0 for every core")
        self._folder, self._engines, self._threads, self._thrifty = folder, engines, threads, thrifty
        files = [file for segments in engines.values() for file in segments.files]
        self.residency = Residency(files, self._session, budget, self._read_through)
        self.pool = self.residency.pool
        self.empty = self.pool.empty
        self._openings: dict[Key, Opening] = {}
        self._counters: dict[Key, Counter] = {}
        self._lock = Lock()
        self._lanes = ThreadPoolExecutor(MOST_LANES, thread_name_prefix="lane")

    def run(self, component: str, graph: str, inputs: Mapping[str, Given]) -> dict[str, Value]:
        """Execute a component's graph once, opening its files if need be. Inputs and outputs by name.

        Raises TargetError where there is none, where it takes other inputs, and where its engine fails.
        """
        self._openings.setdefault((component, graph), self._opening((component, graph), 1))
        (outputs,) = self._execute((component, graph), [inputs])
        return outputs

    def run_together(self, component: str, graph: str, inputs: Sequence[Mapping[str, Given]]) -> list[dict[str, Value]]:
        """Execute a graph once for each of these inputs, in lanes that share the threads.

        Threads that work on graphs of their own wait for each other less often than those that share one. A GPU is
        busy with one execution, and would need the memory of all.
        """
        self._openings[component, graph] = self._opening((component, graph), len(inputs))
        return self._execute((component, graph), inputs)

    @contextmanager
    def expect(self, uses: Iterable[GraphUse]) -> Generator[None]:
        """For the length of a `with`: these graphs will be executed, in this order. Raises TargetError."""
        files: list[EngineFile] = []
        for component, graph, branches in uses:
            self._openings[component, graph] = self._opening((component, graph), branches)
            files += self._segments((component, graph)).files
        with self.residency.expect(files):
            yield

    @contextmanager
    def reserve(self, size: int, components: Collection[str]) -> Generator[None]:
        """For the length of a `with`: keep room for so many bytes beside engines of these components.

        Raises TargetError where the budget is too small for that.
        """
        with self.residency.reserve(size, self._files(components)):
            yield

    def check_room(self, size: int, components: Collection[str]) -> None:
        """Raises TargetError where `reserve` would."""
        self.residency.check_room(size, self._files(components))

    def open(self, component: str, graph: str) -> None:
        """Open a graph's files, as far as they find room, before anybody needs them. Raises TargetError."""
        self._openings.setdefault((component, graph), self._opening((component, graph), 1))
        for file in self._segments((component, graph)).files:
            with self.residency.use(file):
                pass

    def give_back(self, component: str) -> None:
        """Give the system what the pool keeps, where a component keeps nothing between executions.

        Results fill as they are computed: in memory that was kept they would take all of it from the beginning.
        """
        if self._is_thrifty(component):
            self.pool.trim()

    def close(self, component: str) -> None:
        """Free a component's sessions and their weights; its counters stay."""
        self.residency.close(self._files((component,)))

    def counters(self) -> dict[str, dict[str, int | float]]:
        """`<component>/<graph>` → executions, bytes, seconds, since the executor was made."""
        return {"/".join(key): asdict(counter) for key, counter in self._counters.items()}

    def _files(self, components: Collection[str]) -> list[EngineFile]:
        return [file for key, segments in self._engines.items() if key[0] in components for file in segments.files]

    def _segments(self, key: Key) -> Segments:
        if key not in self._engines:
            raise TargetError(f"this bundle has no engine for {key[0]}/{key[1]}")
        return self._engines[key]

    def _opening(self, key: Key, branches: int) -> Opening:
        """For this thread, which will execute a graph for so many branches at once."""
        threads = threads_here(self._threads)
        is_on_gpu = key in self._engines and self._engines[key].files[0].target == CUDA
        lanes = 1 if is_on_gpu else min(branches, threads or available_cores(), MOST_LANES)
        return Opening(lanes, threads, cores_here())

    def _is_thrifty(self, component: str) -> bool:
        return self.residency.budget is not None or component in self._thrifty

    def _read_through(self, file: EngineFile) -> None:
        with span("read", file.component, file.graph):
            self._folder.read(file.file, read_through)

    def _session(self, file: EngineFile) -> Session:
        key = (file.component, file.graph)
        # One that stands in another's place was never announced.
        opening = self._openings.get(key) or self._opening(key, 1)
        if opening.cores != cores_here():
            # Ahead of its use a file is opened by another thread; an engine's own threads are kept where that one is.
            keep_on(opening.cores)
        shown, started = self._folder.shown(file.file), time.perf_counter()
        with span("load", file.component, file.graph):
            session = self._folder.read(
                file.file,
                lambda path: Session(
                    file.engine,
                    path,
                    threads=opening.threads,
                    lanes=opening.lanes,
                    shown=shown,
                    target=file.target,
                    thrifty=self._is_thrifty(file.component),
                    empty=self.empty,
                ),
            )
        count(LOADS, component=file.component, graph=file.graph)
        explain(f"opened {shown} with {file.engine} in {time.perf_counter() - started:.2f} s")
        if absent := set(file.outputs) - set(session.outputs):
            raise TargetError(f"gives no {min(absent)}, which its entry in the manifest names", where=shown)
        return session

    def _execute(self, key: Key, inputs: Sequence[Mapping[str, Given]]) -> list[dict[str, Value]]:
        """Segment by segment: each is used once for all branches."""
        segments = self._segments(key)
        for given in inputs:
            _check_names(key, segments, given)
        # What several branches are given is one value: a device has one copy of it.
        known: dict[int, Value] = {}
        branches = [
            {name: known.setdefault(id(entry), as_value(entry)) for name, entry in given.items()} for given in inputs
        ]
        for values in branches:
            self._count(key, bytes_=sum(value.bytes for value in values.values()))
        for file, dropped in zip(segments.files, segments.dropped, strict=True):
            checkpoint()
            self._run_segment(segments, file, branches)
            for values in branches:
                for name in dropped:
                    del values[name]
        return [{name: values[name] for name in segments.outputs} for values in branches]

    def _run_segment(self, segments: Segments, file: EngineFile, branches: Sequence[dict[str, Value]]) -> None:
        """Add to each branch's values what a segment gives for them. Nothing holds its session behind that."""
        with self.residency.use(file) as session:
            self._run_branches(session, segments, file, branches)

    def _run_branches(
        self, session: Session, segments: Segments, file: EngineFile, branches: Sequence[dict[str, Value]]
    ) -> None:
        key = (file.component, file.graph)
        # A lane holds on to what it has run a moment longer, and must not hold the session.
        weak = weakref.ref(session)

        def run(values: dict[str, Value]) -> None:
            checkpoint()
            session = weak()
            assert session is not None, "it is in use"
            started = time.perf_counter()
            with span("execute", *key):
                values |= as_values(session.run({name: values[name] for name in file.inputs}))
            self._count(key, seconds=time.perf_counter() - started)
            if file is segments.files[-1]:
                self._count(key, executions=1, bytes_=sum(values[name].bytes for name in segments.outputs))

        if len(branches) == 1 or self._opening(key, len(branches)).lanes == 1:
            for values in branches:
                run(values)
            return
        # A lane works for whom its caller works for, and ends when that is to end.
        contexts = [copy_context() for _ in branches]
        list(self._lanes.map(lambda context, values: context.run(run, values), contexts, branches))

    def _count(self, key: Key, *, executions: int = 0, bytes_: int = 0, seconds: float = 0.0) -> None:
        with self._lock:
            counter = self._counters.setdefault(key, Counter())
            counter.executions += executions
            counter.bytes += bytes_
            counter.seconds += seconds
        if executions:
            count(EXECUTIONS, executions, component=key[0], graph=key[1])
        if bytes_:
            count(GRAPH_BYTES, bytes_, component=key[0], graph=key[1])


def _check_names(key: Key, segments: Segments, inputs: Mapping[str, Given]) -> None:
    if set(inputs) != set(segments.inputs):
        raise TargetError(
            f"{'/'.join(key)} is given {', '.join(sorted(inputs)) or 'nothing'}",
            hint=f"it takes {', '.join(sorted(segments.inputs)) or 'nothing'}",
        )
