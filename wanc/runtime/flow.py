"""Many requests on their way through stages: who goes next, and how many may be where. No threads here, and no time.

In front of each stage requests wait in a fair queue. A stage takes a request only if there is room for it in front of
the next one, so that what is half done is bounded, and nobody stands in anybody's way: of one tenant only so many may
wait in front of a stage, and those of others pass it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from . import events
from .errors import TooManyRequests
from .events import QUEUE
from .fair_queue import FairQueue

J = TypeVar("J")


@dataclass(frozen=True)
class StageQueue:
    """A part of the way. `room` is for requests that wait in front of it, and `tenant_room` for those of one tenant; in
    front of the first stage the limits hold instead.
    """

    name: str
    room: int = 8
    tenant_room: int = 1

    def behind(self, workers: int) -> StageQueue:
        """The same, with room for what so many workers of the stage before may have in hands of one tenant."""
        return replace(self, room=max(self.room, workers), tenant_room=max(self.tenant_room, workers))


@dataclass(frozen=True)
class Limits:
    """How many requests may be on their way, or wait to be, and how many of one tenant."""

    requests: int = 1000
    tenant_requests: int = 100


@dataclass(eq=False)
class Admitted(Generic[J]):
    """A request on its way: `cost` is its work, in any unit, `number` says when it came, `job` is what it is about."""

    tenant: str
    cost: float
    number: int
    job: J
    name: str = ""
    since: float = 0.0
    places: int = field(default=0, init=False)
    """In how many queues and hands it is: in two, where a stage has handed it on and is still at work on it."""


class RequestFlow(Generic[J]):
    """The state of all stages. Its methods are called by one thread at a time."""

    def __init__(self, stages: Sequence[StageQueue], limits: Limits) -> None:
        self._stages, self._limits = stages, limits
        self._queues: list[FairQueue[Admitted[J]]] = [FairQueue() for _ in stages]
        # Rooms that are kept in front of a stage for what is in the hands of the one before.
        self._kept: list[Counter[str]] = [Counter() for _ in stages]
        self._inside: Counter[str] = Counter()

    @property
    def is_empty(self) -> bool:
        return not self._inside

    def admit(self, entry: Admitted[J]) -> None:
        """Let a request wait for the first stage. Raises TooManyRequests."""
        limits = self._limits
        if self._inside.total() >= limits.requests:
            raise TooManyRequests(f"{limits.requests} requests wait already", hint="ask again when some are done")
        if self._inside[entry.tenant] >= limits.tenant_requests:
            raise TooManyRequests(
                f"{limits.tenant_requests} requests of {entry.tenant or 'this tenant'} wait already",
                hint="ask again when some are done",
            )
        self._inside[entry.tenant] += 1
        self._put(0, entry)

    def take(self, stage: int) -> Admitted[J] | None:
        """The request that a stage is to work on next, now in its hands; None while there is none that may go."""
        entry = self._queues[stage].take(lambda entry: self._has_room(stage + 1, entry.tenant))
        if entry is not None:
            self._tell(stage)
            events.waited("wait", entry.since, self._stages[stage].name, entry.name)
            if stage + 1 < len(self._stages):
                self._kept[stage + 1][entry.tenant] += 1
        return entry

    def hand_on(self, stage: int, entry: Admitted[J]) -> None:
        """Let a request wait for the next stage, in the room that was kept; this one may still be at work on it."""
        self._free(stage + 1, entry)
        self._put(stage + 1, entry)

    def leave(self, stage: int, entry: Admitted[J], *, handed_on: bool) -> None:
        """A stage has let go of a request."""
        if not handed_on and stage + 1 < len(self._stages):
            self._free(stage + 1, entry)
        self._gone(entry)

    def drop(self, entry: Admitted[J]) -> None:
        """A request need not wait any longer for anything; whoever has it in hands lets go of it by itself."""
        for stage, queue in enumerate(self._queues):
            if queue.drop(entry):
                self._tell(stage)
                self._gone(entry)

    def _has_room(self, stage: int, tenant: str) -> bool:
        if stage == len(self._stages):
            return True
        limits, queue, kept = self._stages[stage], self._queues[stage], self._kept[stage]
        return len(queue) + kept.total() < limits.room and queue.count(tenant) + kept[tenant] < limits.tenant_room

    def _put(self, stage: int, entry: Admitted[J]) -> None:
        entry.places += 1
        entry.since = events.clock()
        self._queues[stage].put(entry)
        self._tell(stage)

    def _free(self, stage: int, entry: Admitted[J]) -> None:
        kept = self._kept[stage]
        kept[entry.tenant] -= 1
        if not kept[entry.tenant]:
            del kept[entry.tenant]

    def _gone(self, entry: Admitted[J]) -> None:
        """It is in one place less."""
        entry.places -= 1
        if not entry.places:
            self._inside[entry.tenant] -= 1
            if not self._inside[entry.tenant]:
                del self._inside[entry.tenant]

    def _tell(self, stage: int) -> None:
        events.gauge(QUEUE, len(self._queues[stage]), stage=self._stages[stage].name)
