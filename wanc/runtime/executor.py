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
from .cores import cores_here, keep_on
from .engine_file import EngineFile, Key
from .errors import TargetError, UserError
from .events import EXECUTIONS, GRAPH_BYTES, LOADS, count, span
from .folder import PlainFolder
from .openings import MOST_LANES, Openings
from .read_ahead import read_through
from .residency import Residency
from .segments import Segments
from .session import Session
from .uses import GraphUse
from .value import Given, Value, as_value, as_values
from .voice import explain
from .workers.create import TIMEOUT, cores_of, devices_of, thread_workers
from .workers.execution import Execute
from .workers.micro_batches import run_micro_batches
from .workers.worker import DeviceWorker


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
        budget: int | None = None,
        thrifty: Collection[str] = (),
        worker_timeout: float = TIMEOUT,
    ) -> None:
        """The engines' files lie in `folder`; `budget` is what open files and reserved values may take, in bytes.

        `thrifty` are components whose engines keep no memory between executions; where there is a budget, all are.
        Files that lie on several devices are executed by a worker for each, which has `worker_timeout` seconds for one.

        Raises UserError for a number of threads that there cannot be.
        """
        if threads < 0:
            raise UserError(f"{threads} threads", hint="ask for 1 or more, or 0 for every core")
        self._folder, self._engines, self._threads, self._thrifty = folder, engines, threads, thrifty
        files = [file for segments in engines.values() for file in segments.files]
        self.residency = Residency(files, self._session, budget, self._read_through)
        self.pool = self.residency.pool
        self.empty = self.pool.empty
        devices = devices_of(files)
        self._cores = cores_of(devices) if len(devices) > 1 else {}
        self._workers: Mapping[str, DeviceWorker] = thread_workers(self._cores, _weakly(self._run_file))
        for worker in self._workers.values():
            weakref.finalize(self, worker.close)
        self._worker_timeout = worker_timeout
        self._openings = Openings(threads, self._cores)
        self._counters: dict[Key, Counter] = {}
        self._lock = Lock()
        self._lanes = ThreadPoolExecutor(MOST_LANES, thread_name_prefix="lane")

    @property
    def devices(self) -> int:
        """How many work at once, each on a micro-batch of its own."""
        return len(self._workers) or 1

    def run(self, component: str, graph: str, inputs: Mapping[str, Given]) -> dict[str, Value]:
        """Execute a component's graph once, opening its files if need be. Inputs and outputs by name.

        Raises TargetError where there is none, where it takes other inputs, and where its engine fails.
        """
        self._openings.announce_once(self._segments((component, graph)).files)
        (outputs,) = self._execute((component, graph), [inputs])
        return outputs

    def run_together(self, component: str, graph: str, inputs: Sequence[Mapping[str, Given]]) -> list[dict[str, Value]]:
        """Execute a graph once for each of these inputs, in lanes that share the threads.

        Threads that work on graphs of their own wait for each other less often than those that share one. Where
        segments lie on several devices, each input is a micro-batch that goes through all of them.
        """
        self._openings.announce(self._segments((component, graph)).files, len(inputs))
        return self._execute((component, graph), inputs)

    @contextmanager
    def expect(self, uses: Iterable[GraphUse]) -> Generator[None]:
        """For the length of a `with`: these graphs will be executed, in this order. Raises TargetError."""
        files: list[EngineFile] = []
        for component, graph, branches in uses:
            found = self._segments((component, graph)).files
            self._openings.announce(found, branches)
            files += found
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
        files = self._segments((component, graph)).files
        self._openings.announce_once(files)
        for file in files:
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

    def _is_thrifty(self, component: str) -> bool:
        return self.residency.budget is not None or component in self._thrifty

    def _read_through(self, file: EngineFile) -> None:
        with span("read", file.component, file.graph):
            self._folder.read(file.file, read_through)

    def _session(self, file: EngineFile) -> Session:
        opening = self._openings.known(file)
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
        if self._workers:
            found = run_micro_batches(segments, branches, self._workers, self._worker_timeout)
        else:
            found = self._in_turn(segments, branches)
        for outputs in found:
            self._count(key, executions=1, bytes_=sum(value.bytes for value in outputs.values()))
        return found

    def _in_turn(self, segments: Segments, branches: list[dict[str, Value]]) -> list[dict[str, Value]]:
        """Segment by segment, on one device: each is used once for all branches."""
        for file, dropped in zip(segments.files, segments.dropped, strict=True):
            checkpoint()
            with self.residency.use(file) as session:
                self._run_branches(session, file, branches)
            for values in branches:
                for name in dropped:
                    del values[name]
        return [{name: values[name] for name in segments.outputs} for values in branches]

    def _run_branches(self, session: Session, file: EngineFile, branches: Sequence[dict[str, Value]]) -> None:
        """Add to each branch's values what a segment gives for them."""
        # A lane holds on to what it has run a moment longer, and must not hold the session.
        weak = weakref.ref(session)

        def run(values: dict[str, Value]) -> None:
            checkpoint()
            session = weak()
            assert session is not None, "it is in use"
            values |= self._run_session(session, file, {name: values[name] for name in file.inputs})

        if len(branches) == 1 or self._openings.of(file, len(branches)).lanes == 1:
            for values in branches:
                run(values)
            return
        # A lane works for whom its caller works for, and ends when that is to end.
        contexts = [copy_context() for _ in branches]
        list(self._lanes.map(lambda context, values: context.run(run, values), contexts, branches))

    def _run_file(self, file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """What a worker executes."""
        checkpoint()
        with self.residency.use(file) as session:
            return self._run_session(session, file, inputs)

    def _run_session(self, session: Session, file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        key, started = (file.component, file.graph), time.perf_counter()
        with span("execute", *key):
            outputs = as_values(session.run(inputs))
        self._count(key, seconds=time.perf_counter() - started)
        return outputs

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


def _weakly(run_file: Execute) -> Execute:
    """The same method, of an object that this does not keep alive: a worker's thread lives as long as its executor."""
    weak = weakref.WeakMethod(run_file)

    def run(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        method = weak()
        assert method is not None, "who waits for it holds the executor"
        return method(file, inputs)

    return run


def _check_names(key: Key, segments: Segments, inputs: Mapping[str, Given]) -> None:
    if set(inputs) != set(segments.inputs):
        raise TargetError(
            f"{'/'.join(key)} is given {', '.join(sorted(inputs)) or 'nothing'}",
            hint=f"it takes {', '.join(sorted(segments.inputs)) or 'nothing'}",
        )
