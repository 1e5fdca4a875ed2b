"""A simulator of discrete events: requests, guidance branches and steps flow through groups of devices.

A group does one execution at a time, without interruption. The oldest request comes first: requests that began together
drift apart, and do not all come to the decoder at once. Of one request the earliest step comes first, then the first
branch. Who waits for several devices has them kept free. What is sent takes its turn on the link from one group to the
next, and overlaps with everything else.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

LOAD = "load"
"""What an event is called in which one expert's weights take the place of the other's."""


@dataclass(frozen=True)
class Hop:
    """An execution on a group of devices, and the seconds that its result is then on the link to the next group."""

    devices: tuple[int, ...]
    seconds: float
    sending: float = 0.0


Route = tuple[Hop, ...]


@dataclass(frozen=True)
class FlowPhase:
    """`executions` one behind the other; each takes all `routes`, independent of each other, and is over with the last.

    `loads` come before a phase whose weights are not those that are there.
    """

    name: str
    executions: int
    routes: tuple[Route, ...]
    loads: tuple[Hop, ...] = ()


@dataclass(frozen=True)
class Flow:
    """What every request goes through.

    Where some phase has `loads`, requests go in waves: all of a wave reach the phase before one of them enters it.
    """

    phases: tuple[FlowPhase, ...]

    @property
    def in_waves(self) -> bool:
        """Whether weights are swapped between phases."""
        return any(phase.loads for phase in self.phases)

    @property
    def sending(self) -> float:
        """Seconds in which values of one video are on links."""
        return sum(phase.executions * hop.sending for phase in self.phases for route in phase.routes for hop in route)

    @cached_property
    def busy(self) -> dict[int, float]:
        """Seconds that each device works for one video, without loads."""
        seconds: dict[int, float] = {}
        for phase in self.phases:
            for hop in (hop for route in phase.routes for hop in route):
                for device in hop.devices:
                    seconds[device] = seconds.get(device, 0.0) + phase.executions * hop.seconds
        return seconds


class Event(NamedTuple):
    """What a group of devices did, in seconds from the beginning."""

    devices: tuple[int, ...]
    what: str
    request: int
    branch: int
    step: int
    start: float
    end: float


@dataclass(frozen=True)
class SimulatedRun:
    """All events in the order of their beginning, and when each request was finished."""

    events: tuple[Event, ...]
    finished: tuple[float, ...]

    def busy(self, device: int, since: float, until: float) -> float:
        """Seconds in which a device works between two moments."""
        spans = (event for event in self.events if device in event.devices)
        return sum(max(0.0, min(event.end, until) - max(event.start, since)) for event in spans)


class _Task(NamedTuple):
    """A hop of a request; the order of the fields is that in which tasks are served. Loads have the branch -1."""

    request: int
    phase: int
    execution: int
    branch: int
    hop: int


def simulate(flow: Flow, requests: int, in_flight: int) -> SimulatedRun:
    """So many requests, of which at most `in_flight` are under way at once: the next enters when one is finished."""
    return _Simulation(flow, requests, in_flight).run()


class _Simulation:
    def __init__(self, flow: Flow, requests: int, in_flight: int) -> None:
        self._flow = flow
        self._requests = requests
        self._in_flight = in_flight
        self._agenda: list[tuple[float, bool, _Task]] = []  # when, whether it arrives or ends, what
        self._waiting: list[_Task] = []
        self._busy: set[int] = set()
        self._links: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
        self._missing: dict[int, int] = {}  # branches that the execution of a request waits for
        self._gathered: list[int] = []
        self._loaded = next((index for index, phase in enumerate(flow.phases) if phase.loads), 0)
        self._events: list[Event] = []
        self._finished = [0.0] * requests
        self._admitted = 0
        self._done = 0

    def run(self) -> SimulatedRun:
        self._admit(min(self._in_flight, self._requests), 0.0)
        self._start_what_can(0.0)
        while self._agenda:
            now = self._agenda[0][0]
            while self._agenda and self._agenda[0][0] == now:
                _, arrives, task = heapq.heappop(self._agenda)
                (self._arrive if arrives else self._end)(task, now)
            self._start_what_can(now)
        return SimulatedRun(tuple(self._events), tuple(self._finished))

    def _admit(self, number: int, now: float) -> None:
        entering = range(self._admitted, self._admitted + number)
        self._admitted += number  # first of all: a wave is as large as what was admitted with it
        for request in entering:
            self._enter(request, 0, now)

    def _route(self, task: _Task) -> Route:
        phase = self._flow.phases[task.phase]
        return phase.loads if task.branch < 0 else phase.routes[task.branch]

    def _start_what_can(self, now: float) -> None:
        """Begin every task whose devices are free and which nobody waits for who came earlier."""
        claimed = set(self._busy)
        waiting: list[_Task] = []
        for task in sorted(self._waiting):
            hop = self._route(task)[task.hop]
            if claimed.isdisjoint(hop.devices):
                self._busy.update(hop.devices)
                end = now + hop.seconds
                what = LOAD if task.branch < 0 else self._flow.phases[task.phase].name
                event = Event(hop.devices, what, task.request, max(0, task.branch), task.execution, now, end)
                self._events.append(event)
                heapq.heappush(self._agenda, (end, False, task))
            else:
                waiting.append(task)
            claimed.update(hop.devices)
        self._waiting = waiting

    def _end(self, task: _Task, now: float) -> None:
        route = self._route(task)
        hop = route[task.hop]
        self._busy.difference_update(hop.devices)
        following = route[(task.hop + 1) % len(route)]
        arrival = now
        if hop.sending:
            link = (hop.devices, following.devices)
            arrival = self._links[link] = max(now, self._links.get(link, 0.0)) + hop.sending
        heapq.heappush(self._agenda, (arrival, True, task._replace(hop=task.hop + 1)))

    def _arrive(self, task: _Task, now: float) -> None:
        if task.branch >= 0 and task.hop < len(self._route(task)):
            self._waiting.append(task)
            return
        self._missing[task.request] -= 1
        if self._missing[task.request]:
            return
        if task.branch < 0:
            self._release(task.phase)
        elif task.execution + 1 < self._flow.phases[task.phase].executions:
            self._execute(task.request, task.phase, task.execution + 1)
        else:
            self._enter(task.request, task.phase + 1, now)

    def _enter(self, request: int, phase: int, now: float) -> None:
        if phase == len(self._flow.phases):
            self._finish(request, now)
        elif self._flow.phases[phase].loads:
            self._gather(request, phase)
        else:
            self._execute(request, phase, 0)

    def _execute(self, request: int, phase: int, execution: int) -> None:
        routes = self._flow.phases[phase].routes
        self._missing[request] = len(routes)
        self._waiting.extend(_Task(request, phase, execution, branch, 0) for branch in range(len(routes)))

    def _gather(self, request: int, phase: int) -> None:
        """Wait for the rest of the wave, then for the weights."""
        self._gathered.append(request)
        if len(self._gathered) < self._admitted - self._done:
            return
        if self._loaded == phase:
            self._release(phase)
            return
        self._loaded = phase
        loads = self._flow.phases[phase].loads
        self._missing[request] = len(loads)
        self._waiting.extend(_Task(request, phase, 0, -1, hop) for hop in range(len(loads)))

    def _release(self, phase: int) -> None:
        gathered, self._gathered = self._gathered, []
        for request in gathered:
            self._execute(request, phase, 0)

    def _finish(self, request: int, now: float) -> None:
        self._finished[request] = now
        self._done += 1
        if not self._flow.in_waves:
            self._admit(min(1, self._requests - self._admitted), now)
        elif self._done == self._admitted:
            self._admit(min(self._in_flight, self._requests - self._admitted), now)
