"""Executing graphs: a session per engine file, opened as the residency has it, with every execution counted."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import asdict, dataclass
from threading import Lock
from typing import ParamSpec, TypeVar

from .checkpoint import checkpoint
from .engine_file import EngineFile, Key
from .engine_runner import EngineRunner
from .errors import TargetError, UserError
from .events import EXECUTIONS, GRAPH_BYTES, count
from .folder import PlainFolder
from .openings import MOST_LANES, Openings
from .segments import Segments
from .session import Session
from .uses import GraphUse
from .value import Given, Value, as_value
from .workers.create import (
    chosen_timeout,
    chosen_transport,
    cores_of,
    devices_of,
    process_workers,
    ray_workers,
    shared_pool,
    thread_workers,
)
from .workers.micro_batches import run_micro_batches
from .workers.plan import DevicePlan
from .workers.worker import DeviceWorker, RemoteWorker

P = ParamSpec("P")
R = TypeVar("R")


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
        worker_timeout: float | None = None,
        transport: str | None = None,
    ) -> None:
        """The engines' files lie in `folder`; `budget` is what open files and reserved values may take, in bytes.

        `thrifty` are components whose engines keep no memory between executions; where there is a budget, all are.
        Files that lie on several devices are executed by a worker for each, which has `worker_timeout` seconds for one,
        `TIMEOUT` unless given: of `transport` `threads`, as unless given, `processes`, or `ray:HOST:PORT`, a cluster.

        Raises UserError for a number of threads that there cannot be, for a time-out that is none, and for processes or
        a time-out where there is one device, or processes and a budget.
        """
        if threads < 0:
            raise UserError(f"{threads} threads", hint="ask for 1 or more, or 0 for every core")
        self._engines = engines
        files = [file for segments in engines.values() for file in segments.files]
        devices = devices_of(files)
        cores = cores_of(devices) if len(devices) > 1 else {}
        self._openings = Openings(threads, cores)
        self._worker_timeout = chosen_timeout(worker_timeout, devices)
        chosen = chosen_transport(transport, devices)
        if chosen != "threads" and budget is not None:
            raise UserError(
                "a budget is kept in one process, and is not divided among several",
                hint="leave --workers out, or run without a budget",
            )
        self._runner = EngineRunner(folder, files, self._openings, self._note_seconds, budget=budget, thrifty=thrifty)
        self.residency = self._runner.residency
        self.pool = self.residency.pool
        self.empty = self.pool.empty
        self._processes: Mapping[str, RemoteWorker] = {}
        self._exchanged, note_seconds = self.empty, _weakly(self._note_seconds)
        if chosen == "ray":
            assert transport is not None
            self._cluster = ray_workers(transport, folder, files, threads, thrifty, self._worker_timeout, note_seconds)
            self._processes = self._cluster.workers
        elif chosen == "processes":
            self._exchanged = shared_pool().empty
            threads_of = self._openings.threads_of
            plans = [DevicePlan.of(name, folder, files, threads_of(name), own, thrifty) for name, own in cores.items()]
            self._processes = process_workers(plans, self._exchanged, self._worker_timeout, note_seconds)
        self._workers: Mapping[str, DeviceWorker] = self._processes or thread_workers(cores, _weakly(self._runner.run))
        for worker in self._workers.values():
            weakref.finalize(self, worker.close)
        self._counters: dict[Key, Counter] = {}
        self._lock = Lock()
        self._lanes = ThreadPoolExecutor(MOST_LANES, thread_name_prefix="lane")

    def devices(self, graph: str) -> int:
        """How many devices a graph of this name lies on, of the component in which these are most."""
        found = [segments.files for key, segments in self._engines.items() if key[1] == graph]
        return max((len(devices_of(files)) for files in found), default=1)

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
        if self._processes:  # each opens its files when it executes them
            yield
            return
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
        """Open a graph's files, as far as they find room, before anybody needs them. Raises TargetError.

        Where devices are processes, these are started.
        """
        files = self._segments((component, graph)).files
        self._openings.announce_once(files)
        for worker in self._processes.values():
            worker.begin()
        for file in files if not self._processes else ():
            with self.residency.use(file):
                pass

    def give_back(self, component: str) -> None:
        """Give the system what the pool keeps, where a component keeps nothing between executions.

        Results fill as they are computed: in memory that was kept they would take all of it from the beginning.
        """
        if self._runner.is_thrifty(component):
            self.pool.trim()

    def close(self, component: str) -> None:
        """Free a component's sessions and their weights; its counters stay."""
        files = self._files((component,))
        self.residency.close(files)
        for worker in self._processes.values():
            worker.close_files(files)

    def counters(self) -> dict[str, dict[str, int | float]]:
        """`<component>/<graph>` → executions, bytes, seconds, since the executor was made."""
        return {"/".join(key): asdict(counter) for key, counter in self._counters.items()}

    def _files(self, components: Collection[str]) -> list[EngineFile]:
        return [file for key, segments in self._engines.items() if key[0] in components for file in segments.files]

    def _segments(self, key: Key) -> Segments:
        if key not in self._engines:
            raise TargetError(f"this bundle has no engine for {key[0]}/{key[1]}")
        return self._engines[key]

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
        for worker in self._processes.values():
            worker.begin()  # all at once, before the first values come to the last of them
        if self._workers:
            found = run_micro_batches(segments, branches, self._workers, self._worker_timeout, self._exchanged)
        else:
            return self._in_turn(segments, branches)
        for outputs in found:
            self._count_execution(key, outputs)
        return found

    def _in_turn(self, segments: Segments, branches: list[dict[str, Value]]) -> list[dict[str, Value]]:
        """Segment by segment, on one device: each is used once for all branches."""
        for file, dropped in zip(segments.files, segments.dropped, strict=True):
            checkpoint()
            with self.residency.use(file) as session:
                self._run_branches(session, segments, file, branches)
            for values in branches:
                for name in dropped:
                    del values[name]
        return [{name: values[name] for name in segments.outputs} for values in branches]

    def _run_branches(
        self, session: Session, segments: Segments, file: EngineFile, branches: Sequence[dict[str, Value]]
    ) -> None:
        """Add to each branch's values what a segment gives for them."""
        # A lane holds on to what it has run a moment longer, and must not hold the session.
        weak = weakref.ref(session)

        def run(values: dict[str, Value]) -> None:
            checkpoint()
            session = weak()
            assert session is not None, "it is in use"
            values |= self._runner.run_session(session, file, {name: values[name] for name in file.inputs})
            if file is segments.files[-1]:
                self._count_execution((file.component, file.graph), {name: values[name] for name in segments.outputs})

        if len(branches) == 1 or self._openings.of(file, len(branches)).lanes == 1:
            for values in branches:
                run(values)
            return
        # A lane works for whom its caller works for, and ends when that is to end.
        contexts = [copy_context() for _ in branches]
        list(self._lanes.map(lambda context, values: context.run(run, values), contexts, branches))

    def _count_execution(self, key: Key, outputs: Mapping[str, Value]) -> None:
        self._count(key, executions=1, bytes_=sum(value.bytes for value in outputs.values()))

    def _note_seconds(self, key: Key, seconds: float) -> None:
        self._count(key, seconds=seconds)

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


def _weakly(method: Callable[P, R]) -> Callable[P, R]:
    """The same method, of an object that this does not keep alive: a worker's thread lives as long as its executor."""
    weak = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        found = weak()
        assert found is not None, "who waits for it holds the executor"
        return found(*args, **kwargs)

    return call


def _check_names(key: Key, segments: Segments, inputs: Mapping[str, Given]) -> None:
    if set(inputs) != set(segments.inputs):
        raise TargetError(
            f"{'/'.join(key)} is given {', '.join(sorted(inputs)) or 'nothing'}",
            hint=f"it takes {', '.join(sorted(segments.inputs)) or 'nothing'}",
        )
