"""Engine files of one process: opened as its residency has it, and executed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping

from .checkpoint import checkpoint
from .cores import cores_here, keep_on
from .engine_file import EngineFile, Key
from .errors import TargetError
from .events import LOADS, count, span
from .folder import PlainFolder
from .openings import Openings
from .pool import AnonymousMemory, PoolMemory
from .read_ahead import read_through
from .residency import Residency
from .session import Session
from .value import Value, as_values
from .voice import explain


class EngineRunner:
    """Files that lie in `folder`, opened for what `openings` knows. Several threads may call its methods at once.

    `budget` and `thrifty` are as for `Executor`; arrays take their bytes from `memory`. After each execution `on_ran`
    is told the graph and the seconds inside the engine.
    """

    def __init__(
        self,
        folder: PlainFolder,
        files: Iterable[EngineFile],
        openings: Openings,
        on_ran: Callable[[Key, float], None],
        *,
        budget: int | None = None,
        thrifty: Collection[str] = (),
        memory: Callable[[int], PoolMemory] = AnonymousMemory,
    ) -> None:
        self._folder, self._openings, self._thrifty, self._on_ran = folder, openings, thrifty, on_ran
        self.residency = Residency(files, self._session, budget, self._read_through, memory)

    def run(self, file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Execute a file once, opening it if need be. Inputs and outputs by name. Raises UserError."""
        checkpoint()
        with self.residency.use(file) as session:
            return self.run_session(session, file, inputs)

    def run_session(self, session: Session, file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """The same with a session of the file, which is in use."""
        key, started = (file.component, file.graph), time.perf_counter()
        with span("execute", *key):
            outputs = as_values(session.run(inputs))
        self._on_ran(key, time.perf_counter() - started)
        return outputs

    def is_thrifty(self, component: str) -> bool:
        """Whether engines of a component keep no memory between executions."""
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
                    thrifty=self.is_thrifty(file.component),
                    empty=self.residency.pool.empty,
                ),
            )
        count(LOADS, component=file.component, graph=file.graph)
        explain(f"opened {shown} with {file.engine} in {time.perf_counter() - started:.2f} s")
        if absent := set(file.outputs) - set(session.outputs):
            raise TargetError(f"gives no {min(absent)}, which its entry in the manifest names", where=shown)
        return session
