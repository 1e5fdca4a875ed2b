"""A device on whichever machine a Ray cluster puts it: an actor, which opens the same bundle there.

Ray is the engine: it chooses the machines and carries arrays between them. An actor verifies the bundle where it is,
under the path that it has here, and executes its device's files. It takes wanc, installed on all machines.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from ..engine_file import EngineFile, Key
from ..errors import EXIT_UNAVAILABLE, TargetError, UserError
from ..folder import PlainFolder
from ..interface import DTYPES
from ..strict_json import Fields
from ..value import Array, Value, as_array
from ..voice import explain
from .desk import Desk, DeskWorker
from .execution import Execution
from .known_shapes import KnownShapes
from .plan import DevicePlan
from .ray_actor import ActorAnswer, ActorPlan, DeviceActor
from .ray_cluster import cause_of, connected
from .remote_error import read_error

ROOM = "wanc.runtime.workers"
"""How the runtime is called where wanc is installed: a bundle's own copy is on no other machine."""
CHECK_SECONDS = 0.5
"""How often who waits for an actor looks whether it is still to wait."""
AGAIN = "run it again: the cluster puts the device on a machine that is there"
INSTALLED = "pip install 'wanc[ray]' here and on the cluster's machines, and run the bundle with `wanc run`"


class RayConnection:
    """The way to a cluster, which a process has once, whatever it is used for; it is left with its last user."""

    _known: ClassVar[WeakValueDictionary[str, RayConnection]] = WeakValueDictionary()

    def __init__(self, address: str) -> None:
        """Raises UserError where there is no such cluster, or the package is missing."""
        self.losses = 0
        """How often an actor was lost: where one was, others may have been, and each device finds a place anew."""
        stack = ExitStack()
        try:
            self.ray = stack.enter_context(connected(address))
        except ModuleNotFoundError as error:
            told = f"the package {error.name} is missing"
            raise UserError(told, hint=INSTALLED, exit_code=EXIT_UNAVAILABLE) from None
        weakref.finalize(self, stack.close)

    @classmethod
    def to(cls, address: str) -> RayConnection:
        """To this cluster. Raises UserError, also where this process is at another one."""
        if others := set(cls._known) - {address}:
            raise UserError(f"this process has its devices on {min(others)} already", hint="use another process")
        found = cls._known.get(address) or cls(address)
        cls._known[address] = found
        return found


class RayWorkers:
    """A worker for each device, on the cluster at `address`.

    Raises UserError where there is no such cluster, or the bundle or its runtime could not be found on its machines.
    """

    def __init__(
        self,
        address: str,
        folder: PlainFolder,
        files: Collection[EngineFile],
        devices: Iterable[str],
        threads: int,
        thrifty: Iterable[str],
        seconds: float,
        on_ran: Callable[[Key, float], object],
    ) -> None:
        if __package__ != ROOM or folder.bundle_id is None:
            raise UserError("workers on a cluster take a sealed bundle and an installed wanc", hint=INSTALLED)
        connection = RayConnection.to(address)
        self.workers: dict[str, RayWorker] = {}
        root = str(Path(folder.shown("")).absolute())
        for device in devices:
            plan = ActorPlan(root, folder.bundle_id, device, threads, tuple(thrifty))
            own = DevicePlan.of(device, folder, files, threads, frozenset())
            self.workers[device] = RayWorker(connection, plan, own, seconds, on_ran)


class RayWorker(DeskWorker):
    """`own` says how the actor numbers its files; it has `seconds` to start. `on_ran` is told of each execution."""

    def __init__(
        self,
        connection: RayConnection,
        plan: ActorPlan,
        own: DevicePlan,
        seconds: float,
        on_ran: Callable[[Key, float], object],
    ) -> None:
        known, unwanted = KnownShapes(), deque[int]()
        self._own, self._unwanted = own, unwanted

        def open_desk() -> Desk:
            actor = _RemoteActor(connection, plan, own, seconds, on_ran, known, unwanted)
            return Desk(plan.device, actor.run, stop=actor.stop, on_begin=actor.begin, on_end=actor.stop)

        super().__init__(plan.device, open_desk)

    def close_files(self, files: Iterable[EngineFile]) -> None:
        """Let the actor close those of these that are its own, before its next execution."""
        self._unwanted.extend(self._own.index(file) for file in files if self._own.has(file))


class _RemoteActor:
    """The actor behind a desk."""

    def __init__(
        self,
        connection: RayConnection,
        plan: ActorPlan,
        own: DevicePlan,
        seconds: float,
        on_ran: Callable[[Key, float], object],
        known: KnownShapes,
        unwanted: deque[int],
    ) -> None:
        self._connection, self._ray = connection, connection.ray
        self._plan, self._own, self._seconds, self._on_ran = plan, own, seconds, on_ran
        self._known, self._unwanted = known, unwanted
        self._stopped = Event()
        self._actor: Any = None
        self._greeted = False
        self._losses = 0

    def begin(self) -> None:
        """Ask the cluster for a place, before anybody waits for it."""
        options = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        self._actor = self._ray.remote(DeviceActor).options(**options).remote(self._plan)
        self._greeted, self._losses = False, self._connection.losses

    def stop(self) -> None:
        """Kill it: whoever waits for it is told."""
        self._stopped.set()
        with suppress(Exception):  # a cluster that is gone has none
            if self._actor is not None:
                self._ray.kill(self._actor)

    def run(self, execution: Execution) -> None:
        """Let it execute something, once it is there. Where it has gone, another takes its place for the next."""
        if execution.ended:
            return
        try:
            self._start(execution)
        except BaseException as error:  # whoever waits for it is told
            execution.fail(error)
        else:
            execution.run(lambda file, inputs: self._execute(execution, file, inputs))

    def _start(self, execution: Execution) -> None:
        """Before the execution's own seconds begin: a cluster may take its time to find a place."""
        if self._losses != self._connection.losses:
            self._again()
        try:
            if not self._greeted:
                self._greet()
        except TimeoutError:
            self._again()
            raise TargetError(
                f"{self._plan.device} has not started within {self._seconds:g} s, for {execution}",
                hint="`ray status` tells whether the cluster has a processor left; or allow more: --worker-timeout",
            ) from None
        except self._ray.exceptions.RayError as error:
            raise self._lost(execution) from cause_of(str(error))

    def _execute(self, execution: Execution, file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        arrays = {name: as_array(value) for name, value in inputs.items()}
        try:
            unwanted = [self._unwanted.popleft() for _ in range(len(self._unwanted))]
            asked = self._actor.execute.remote(self._plan.bundle_id, self._own.index(file), arrays, unwanted)
            answer = self._answer(asked, None)
        except self._ray.exceptions.RayError as error:
            raise self._lost(execution) from cause_of(str(error))
        outputs = self._outputs(answer)
        if fault := self._fault(file, arrays, outputs):
            self._again()
            told = f"{self._plan.device} answered with what is no answer to {execution}: outputs {fault}"
            raise TargetError(told, hint=AGAIN)
        self._on_ran((file.component, file.graph), answer.seconds)
        return {name: Value(array) for name, array in outputs.items()}

    def _lost(self, execution: Execution) -> TargetError:
        """What is told of it, with another actor in the place of this one."""
        self._connection.losses += 1
        self._again()
        return TargetError(f"{self._plan.device} was lost while it had {execution}", hint=AGAIN)

    def _greet(self) -> None:
        """Until the bundle is open there. A machine that has just gone is given actors until the cluster has noticed,
        which takes half a minute: meanwhile others take their place.
        """
        until = time.monotonic() + self._seconds
        while True:
            try:
                hello = self._answer(self._actor.hello.remote(), until - time.monotonic())
                break
            except self._ray.exceptions.RayError:
                if time.monotonic() > until or self._stopped.wait(CHECK_SECONDS):
                    raise
                self._again()
        self._outputs(hello)
        self._greeted = True
        explain(f"{self._plan.device} is on {hello.node}")

    def _answer(self, asked: Any, seconds: float | None) -> ActorAnswer:
        """Raises TimeoutError, and what Ray raises of an actor that is gone."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                return self._ray.get(asked, timeout=CHECK_SECONDS)
            except self._ray.exceptions.GetTimeoutError:
                if self._stopped.is_set():
                    raise TargetError(f"{self._plan.device} was closed") from None
                if until is not None and time.monotonic() > until:
                    raise TimeoutError from None

    def _outputs(self, answer: ActorAnswer) -> Mapping[str, Array]:
        """Raises what the actor has raised."""
        if answer.error is not None:
            raise read_error(Fields(answer.error, self._plan.device))
        return answer.outputs

    def _fault(self, file: EngineFile, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> str | None:
        if strange := [name for name, array in outputs.items() if array.dtype.name not in DTYPES]:
            return f"hold {strange[0]} as {outputs[strange[0]].dtype.name}"
        return self._known.fault(file, inputs, outputs)

    def _again(self) -> None:
        """Another actor in place of this one."""
        with suppress(Exception):
            self._ray.kill(self._actor)
        if not self._stopped.is_set():
            self.begin()
