"""A device that is a process of its own: what hangs there is ended, and what crashes there takes nothing else along.

The process is started with the device's first execution, by the thread that hands executions to it, and ends with that
thread. Where it ends, hangs or answers what is no answer, the next execution finds another one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from threading import Lock
from typing import TypeVar

from ..engine_file import EngineFile, Key
from ..errors import BundleError, TargetError, UserError
from ..events import LOADS, Track, count, done_elsewhere, is_recording
from ..pool import Empty
from ..strict_json import Fields, JsonObject, JsonValue
from ..value import Array, Value
from .child import Child
from .desk import Desk, DeskWorker
from .execution import Execution
from .known_shapes import KnownShapes
from .plan import DevicePlan, digest_of_plan
from .program import program
from .remote_error import read_error
from .shared_memory import SharedBlock, in_shared_memory
from .wire import DONE, EXECUTE, FAILED, HELLO, WireClosed, entry_of

AGAIN = "run it again: another process takes its place"
LOAD = "load"
PHASES = (LOAD, "execute")
"""What a process tells of, as `EngineRunner` calls it."""
LESS = "make fewer videos at once, or raise the limit on descriptors: ulimit -n"
Entry = TypeVar("Entry")
Program = Callable[[], tuple[str, tuple[int, ...]]]
"""The text of a process's program, and the descriptors that it takes."""


class ProcessWorker(DeskWorker):
    """`plan` is what its process has to know, which has so many `seconds` to start. Values that lie in no shared memory
    are copied into arrays of `empty`'s, a pool of blocks. `on_ran` is told of seconds inside the engine.
    """

    def __init__(
        self,
        plan: DevicePlan,
        empty: Empty,
        seconds: float,
        on_ran: Callable[[Key, float], object],
        make_program: Program = program,
    ) -> None:
        known = KnownShapes()
        unwanted: deque[EngineFile] = deque()
        self._plan, self._unwanted = plan, unwanted

        def open_desk() -> Desk:  # which does not hold the worker
            process = _DeviceProcess(plan, empty, seconds, on_ran, make_program, known, unwanted)
            return Desk(plan.device, process.run, stop=process.stop, on_begin=process.begin, on_end=process.end)

        super().__init__(plan.device, open_desk)

    def close_files(self, files: Iterable[EngineFile]) -> None:
        """Let the process close those of these that are its own, before its next execution."""
        self._unwanted.extend(file for file in files if self._plan.has(file))


class _DeviceProcess:
    """The process behind a desk. `stop` is for any thread, all else for the desk's own."""

    def __init__(
        self,
        plan: DevicePlan,
        empty: Empty,
        seconds: float,
        on_ran: Callable[[Key, float], object],
        make_program: Program,
        known: KnownShapes,
        unwanted: deque[EngineFile],
    ) -> None:
        self._plan, self._empty, self._seconds, self._on_ran = plan, empty, seconds, on_ran
        self._program, self._known, self._unwanted = make_program, known, unwanted
        self._bytes = plan.as_bytes()
        self._digest = digest_of_plan(self._bytes)
        self._child: Child | None = None
        self._returned: deque[int] = deque()
        self._is_stopped = self._is_attached = False
        self._lock = Lock()

    def begin(self) -> None:
        """Start the process, before anybody waits for it. What goes wrong is told to the first that does."""
        with suppress(UserError):
            self._start()

    def run(self, execution: Execution) -> None:
        """Let the process execute it, started if need be. What goes wrong is the execution's."""
        if execution.ended:
            return
        try:
            child = self._started(execution)
        except UserError as error:
            execution.fail(error)
            self._let_go()
        else:
            execution.run(lambda file, inputs: self._execute(child, execution, file, inputs))

    def stop(self) -> None:
        """Kill the process, and start no other."""
        with self._lock:
            self._is_stopped = True
            if self._child is not None:
                self._child.kill()

    def end(self) -> None:
        """Leave nothing of it."""
        self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.close()

    def _started(self, execution: Execution) -> Child:
        """The process, which has said hello. Raises UserError."""
        if self._child is not None and self._child.has_ended:
            self._let_go()
        child = self._child or self._start()
        if self._is_attached:
            return child
        try:
            self._check(child.wire.receive(self._seconds), HELLO)
        except TimeoutError:
            raise TargetError(
                f"{self._plan.device} has not started within {self._seconds:g} s, for {execution}",
                hint="allow more: --worker-timeout SECONDS",
            ) from None
        except WireClosed:
            error = child.error(f"{self._plan.device} ended before it had started, for {execution}", AGAIN)
            raise error from error.__cause__
        except BundleError as fault:
            raise self._misfit(execution, fault) from None
        self._is_attached = True
        return child

    def _start(self) -> Child:
        """Another process. Raises UserError."""
        text, descriptors = self._program()
        self._returned, self._is_attached = deque(), False
        with self._lock:
            if self._is_stopped:
                raise TargetError(f"{self._plan.device} was closed")
            self._child = Child(self._plan.device, text, self._bytes, (*descriptors, *self._plan.folder.descriptors))
            return self._child

    def _execute(
        self, child: Child, execution: Execution, file: EngineFile, inputs: Mapping[str, Value]
    ) -> dict[str, Value]:
        try:
            arrays = {name: in_shared_memory(value, self._empty) for name, value in inputs.items()}
            message, blocks = self._question(file, arrays)
        except MemoryError as error:
            raise TargetError(str(error), hint=LESS) from None
        try:
            child.wire.send(message, blocks)
            found = self._read(child, child.wire.receive(), file, arrays)
        except BaseException as error:  # what it says next could be of this one
            told = self._told(child, execution, error)
            self._let_go()
            raise told from told.__cause__
        if isinstance(found, UserError):
            raise found
        return found

    def _told(self, child: Child, execution: Execution, error: BaseException) -> BaseException:
        """What is said of an execution that has no answer, for this reason."""
        match error:
            case WireClosed():
                return child.error(f"{self._plan.device} ended while it executed {execution}", AGAIN)
            case BundleError():
                return self._misfit(execution, error)
            case MemoryError():
                return TargetError(f"{self._plan.device} cannot hand over {execution}: {error}", hint=LESS)
            case _:
                return error

    def _question(self, file: EngineFile, arrays: Mapping[str, Array]) -> tuple[JsonObject, list[SharedBlock]]:
        """The message that asks for an execution, and the blocks that it names."""
        entries: list[JsonValue] = []
        blocks: list[SharedBlock] = []
        for name, array in arrays.items():
            entry, block = entry_of(name, array)
            entries.append(entry)
            blocks.append(block)
        message: JsonObject = {
            "kind": EXECUTE,
            "plan": self._digest,
            "file": self._plan.index(file),
            "inputs": entries,
            "trace": is_recording(),
            "returned": list(_drained(self._returned)),
            "close": [self._plan.index(unwanted) for unwanted in _drained(self._unwanted)],
        }
        return message, blocks

    def _read(
        self, child: Child, answer: Fields, file: EngineFile, arrays: Mapping[str, Array]
    ) -> dict[str, Value] | UserError:
        """What the process has given, or failed with. Raises BundleError where it is not what this file gives."""
        if answer.text("kind") == FAILED:
            self._check(answer, FAILED)
            return read_error(answer.object("error"))
        self._check(answer, DONE)
        outputs = dict(child.wire.array(entry, self._returned.append) for entry in answer.objects("outputs"))
        if fault := self._known.fault(file, arrays, outputs):
            answer.refuse("outputs", fault)
        self._on_ran((file.component, file.graph), answer.number("seconds", minimum=0))
        self._tell(child, answer, file)
        return {name: Value(array) for name, array in outputs.items()}

    def _tell(self, child: Child, answer: Fields, file: EngineFile) -> None:
        """Tell what the process has done, in a track of its own. Raises BundleError for spans that are none."""
        track = Track(child.number, self._plan.device)
        for entry in answer.objects("spans"):
            phase, start = entry.text("phase"), entry.number("start")
            if phase not in PHASES:
                entry.refuse("phase", f"is {ascii(phase)[:40]}, not one of {', '.join(PHASES)}")
            done_elsewhere(phase, start, entry.number("end", minimum=start), track, file.component, file.graph)
            if phase == LOAD:
                count(LOADS, component=file.component, graph=file.graph)

    def _check(self, answer: Fields, kind: str) -> None:
        if answer.text("kind") != kind:
            answer.refuse("kind", f"is {ascii(answer.text('kind'))[:40]}, not {kind}")
        if answer.text("plan") != self._digest:
            answer.refuse("plan", "is another one")

    def _misfit(self, execution: Execution, fault: BundleError) -> TargetError:
        return TargetError(
            f"{self._plan.device} answered with what is no answer to {execution}: {fault.message[:500]}", hint=AGAIN
        )


def _drained(entries: deque[Entry]) -> Iterator[Entry]:
    """All that is there by now; others may add to it meanwhile."""
    while entries:
        yield entries.popleft()
