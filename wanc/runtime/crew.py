"""Threads that carry many requests through stages: each stage has its own, and each thread works on one request."""

from __future__ import annotations

import atexit
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any, Generic, Protocol, TypeVar

from .checkpoint import checked_by
from .cores import all_cores, keep_on
from .errors import TargetError, UserError
from .events import REQUESTS, count, for_request
from .flow import Admitted, Limits, RequestFlow, StageQueue
from .ticket import Ticket


class Job(Protocol):
    """What a request is about."""

    @property
    def ticket(self) -> Ticket[Any]: ...


J = TypeVar("J", bound=Job)
Work = Callable[[J, Callable[[], None]], None]
"""What a stage does with a job. It may call its second argument to hand the job on while it is still at work on it;
otherwise that is done when it returns. The last stage finishes the ticket."""


@dataclass(frozen=True)
class Quota:
    """What a stage may use: as many threads as `workers`, each with a request, kept on these `cores`, None for all.

    An engine that such a thread opens has no more threads than there are cores among these.
    """

    workers: int = 1
    cores: tuple[int, ...] | None = None

    def check(self, stage: str) -> None:
        """Raises UserError for what this machine cannot give."""
        if self.workers < 1:
            raise UserError(f"{self.workers} workers for the stage {stage}", hint="give it one or more")
        if self.cores is not None and (not self.cores or not set(self.cores) <= all_cores()):
            there = ", ".join(map(str, sorted(all_cores()))) or "no core by its number"
            raise UserError(f"the cores {list(self.cores)} for the stage {stage}", hint=f"it may name {there}")


class Crew(Generic[J]):
    """Works from its making until it is closed."""

    def __init__(self, stages: Sequence[tuple[StageQueue, Quota, Work[J]]], limits: Limits) -> None:
        """Raises UserError for quotas that cannot be, TargetError where no threads can be made."""
        for stage, quota, _ in stages:
            quota.check(stage.name)
        before = [1, *(quota.workers for _, quota, _ in stages)]
        self._flow: RequestFlow[J] = RequestFlow(
            [stage.behind(workers) for (stage, _, _), workers in zip(stages, before, strict=False)], limits
        )
        self._work = [work for _, _, work in stages]
        self._changed = Condition()
        self._inside: set[Admitted[J]] = set()
        self._count = 0
        self._is_closed = False
        self._threads = [
            Thread(target=self._serve, args=(index, quota.cores), name=f"{stage.name}-{number}", daemon=True)
            for index, (stage, quota, _) in enumerate(stages)
            for number in range(quota.workers)
        ]
        # Engines cannot be at work while the interpreter is taken apart.
        atexit.register(self.close)
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self.close()
            raise TargetError("a thread cannot be made", hint="raise the limit on processes: ulimit -u") from error

    def submit(self, job: J, *, tenant: str, cost: float) -> None:
        """Let a job wait for the first stage. Raises TooManyRequests, and UserError where the crew is closed."""
        for entry in self._all():
            entry.job.ticket.done()  # what is late by now makes room
        with self._changed:
            if self._is_closed:
                raise UserError("no more requests are taken: this was closed")
            self._count += 1
            entry = Admitted(tenant, cost, self._count, job, name=str(self._count))
            self._flow.admit(entry)
            self._inside.add(entry)
            self._changed.notify_all()
        job.ticket.add_done_callback(lambda ticket: self._decided(entry, ticket))

    def wait(self) -> None:
        """Until no stage has anything to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._flow.is_empty)

    def close(self) -> None:
        """Take nothing more, cancel what is on its way, and wait until all threads have ended, which happens at their
        next checkpoints."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for entry in self._all():
            entry.job.ticket.cancel()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        atexit.unregister(self.close)

    def _all(self) -> list[Admitted[J]]:
        with self._changed:
            return list(self._inside)

    def _serve(self, stage: int, cores: tuple[int, ...] | None) -> None:
        """A thread's life."""
        if cores is not None:
            keep_on(cores)
        while (entry := self._next(stage)) is not None:
            self._work_on(stage, entry)
            del entry  # while this thread waits for another, it holds nothing of this one

    def _next(self, stage: int) -> Admitted[J] | None:
        with self._changed:
            while (entry := self._flow.take(stage)) is None and not self._is_closed:
                self._changed.wait()
            if entry is not None:
                self._changed.notify_all()  # there is room in the queue that it was taken from
            return entry

    def _work_on(self, stage: int, entry: Admitted[J]) -> None:
        ticket, handed_on = entry.job.ticket, False

        def hand_on() -> None:
            nonlocal handed_on
            with self._changed:
                if not handed_on and stage + 1 < len(self._work) and not ticket.done():
                    handed_on = True
                    self._flow.hand_on(stage, entry)
                    self._changed.notify_all()

        try:
            with for_request(entry.name), checked_by(ticket.check):
                ticket.check()
                self._work[stage](entry.job, hand_on)
                hand_on()
        except BaseException as error:  # it is for whoever waits for the result
            _let_go(error)
            ticket.fail(error)
        with self._changed:
            self._flow.leave(stage, entry, handed_on=handed_on)
            self._changed.notify_all()

    def _decided(self, entry: Admitted[J], ticket: Ticket[Any]) -> None:
        count(REQUESTS, outcome=ticket.outcome)
        with self._changed:
            self._inside.discard(entry)
            self._flow.drop(entry)
            self._changed.notify_all()


def _let_go(error: BaseException | None) -> None:
    """Free what the functions had in hands that have failed: their lines are told, and arrays are not kept for it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
