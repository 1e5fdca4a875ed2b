"""Threads that carry requests through stages. The stages are stubs that wait for what a test says."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np
import pytest

from wanc.runtime.checkpoint import checkpoint
from wanc.runtime.cores import all_cores, available_cores, threads_here
from wanc.runtime.crew import Crew, Quota
from wanc.runtime.errors import DeadlineExceeded, RequestCancelled, TargetError, TooManyRequests, UserError
from wanc.runtime.events import REQUESTS, recording, span
from wanc.runtime.flow import Limits, StageQueue
from wanc.runtime.ticket import Ticket

HandOn = Callable[[], None]


@dataclass(eq=False)
class Job:
    name: str = ""
    ticket: Ticket[str] = field(default_factory=Ticket)
    seen: list[str] = field(default_factory=list)
    array: np.ndarray = field(default_factory=lambda: np.zeros(1000))


def crew_of(*works: Callable[[Job, HandOn], None], limits: Limits | None = None, **quotas: Quota) -> Crew[Job]:
    """Stages called s0, s1, …"""
    stages = [(StageQueue(f"s{n}"), quotas.get(f"s{n}", Quota()), work) for n, work in enumerate(works)]
    return Crew[Job](stages, limits or Limits())


def submit(crew: Crew[Job], name: str = "", tenant: str = "", deadline: float | None = None) -> Job:
    job = Job(name, Ticket(deadline))
    crew.submit(job, tenant=tenant, cost=1.0)
    return job


def seen(stage: str) -> Callable[[Job, HandOn], None]:
    return lambda job, _: job.seen.append(stage)


def finish(job: Job, _: HandOn) -> None:
    job.ticket.finish(job.name)


class Gate:
    """A stage that says when it has a request, and goes on when it is let."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Semaphore(0), Event()

    def __call__(self, job: Job, _: HandOn) -> None:
        self.entered.release()
        assert self.open.wait(30)
        checkpoint()

    def wait(self) -> None:
        assert self.entered.acquire(timeout=30)


def test_each_request_passes_all_stages() -> None:
    crew = crew_of(seen("a"), seen("b"), finish)
    jobs = [submit(crew, str(number)) for number in range(20)]
    assert [job.ticket.result(30) for job in jobs] == [str(number) for number in range(20)]
    crew.wait()
    assert all(job.seen == ["a", "b"] for job in jobs)
    crew.close()


def test_stages_work_at_once() -> None:
    """Each stage has another request at the same moment: they meet."""
    meeting = threading.Barrier(3, timeout=30)

    def meet(job: Job, _: HandOn) -> None:
        if job.name in ("2", "3", "4"):
            job.seen.append("met")
            meeting.wait()

    # Of the requests 2, 3 and 4 the first is in the last stage when the third is in the first.
    def stage(index: int) -> Callable[[Job, HandOn], None]:
        return lambda job, hand_on: meet(job, hand_on) if job.name == str(4 - index) else None

    crew = crew_of(stage(0), stage(1), stage(2), finish)
    jobs = [submit(crew, str(number)) for number in range(6)]
    assert [job.ticket.result(30) for job in jobs] == list("012345")
    assert [job.seen for job in jobs] == [[], [], ["met"], ["met"], ["met"], []]
    crew.close()


def test_a_stage_may_hand_on_what_it_still_works_on() -> None:
    handed, taken = Event(), Event()

    def first(job: Job, hand_on: HandOn) -> None:
        hand_on()
        hand_on()
        assert taken.wait(30)
        handed.set()

    def second(job: Job, _: HandOn) -> None:
        taken.set()
        assert handed.wait(30)
        job.ticket.finish("both")

    crew = crew_of(first, second)
    assert submit(crew).ticket.result(30) == "both"
    crew.wait()
    crew.close()


def test_what_fails_is_for_whoever_waits_and_nobody_else() -> None:
    def fail(job: Job, _: HandOn) -> None:
        if job.name == "bad":
            raise ZeroDivisionError("by zero")

    crew = crew_of(fail, finish)
    bad, good = submit(crew, "bad"), submit(crew, "good")
    with pytest.raises(ZeroDivisionError, match="by zero"):
        bad.ticket.result(30)
    assert good.ticket.result(30) == "good"
    crew.wait()
    crew.close()


def test_an_error_holds_nothing_of_what_was_worked_on() -> None:
    alive: list[weakref.ref[Any]] = []

    def fail(job: Job, _: HandOn) -> None:
        big = np.zeros(1000)
        alive.append(weakref.ref(big))
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as error:
            raise UserError("failed") from error

    crew = crew_of(fail, finish)
    ticket = submit(crew).ticket
    with pytest.raises(UserError, match="failed"):
        ticket.result(30)
    crew.wait()
    gc.collect()
    assert [reference() for reference in alive] == [None]
    crew.close()


def test_who_waits_for_the_next_request_holds_nothing_of_the_last() -> None:
    crew = crew_of(seen("a"), finish)
    job = submit(crew, "x")
    alive = weakref.ref(job.array)
    assert job.ticket.result(30) == "x"
    crew.wait()
    del job
    # The thread lets go of it right behind what `wait` waits for.
    for _ in range(1000):
        gc.collect()
        if alive() is None:
            break
        submit(crew, "y").ticket.result(30)
    assert alive() is None
    crew.close()


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_what_is_in_hands_is_cancelled_at_the_next_checkpoint(stage: int) -> None:
    gate = Gate()
    works: list[Callable[[Job, HandOn], None]] = [seen("a"), seen("b"), seen("c"), finish]
    works[stage] = gate
    crew = crew_of(*works)
    job = submit(crew, "x")
    gate.wait()
    assert job.ticket.cancel()
    with pytest.raises(RequestCancelled):
        job.ticket.result(30)
    gate.open.set()
    crew.wait()
    assert job.seen == ["a", "b", "c"][:stage], "no later stage has seen it"
    assert submit(crew, "next").ticket.result(30) == "next"
    crew.close()


def test_what_waits_is_cancelled_at_once_and_makes_room() -> None:
    gate = Gate()
    crew = crew_of(gate, finish, limits=Limits(requests=2))
    first, second = submit(crew, "1"), submit(crew, "2")
    gate.wait()
    with pytest.raises(TooManyRequests):
        submit(crew, "3")
    assert second.ticket.cancel()
    third = submit(crew, "3")
    gate.open.set()
    assert [first.ticket.result(30), third.ticket.result(30)] == ["1", "3"]
    assert second.seen == []
    crew.close()


def test_what_is_late_makes_room() -> None:
    gate = Gate()
    crew = crew_of(gate, finish, limits=Limits(requests=2))
    first = submit(crew, "1")
    gate.wait()
    second = submit(crew, "2", deadline=0.001)
    with pytest.raises(DeadlineExceeded):
        second.ticket.result(30)
    third = submit(crew, "3")
    gate.open.set()
    assert [first.ticket.result(30), third.ticket.result(30)] == ["1", "3"]
    crew.close()


def test_closing_cancels_all_and_takes_nothing_more() -> None:
    gate = Gate()
    crew = crew_of(gate, finish)
    jobs = [submit(crew, str(number)) for number in range(5)]
    gate.wait()
    closing = threading.Thread(target=crew.close)
    closing.start()
    for job in jobs:
        with pytest.raises(RequestCancelled):
            job.ticket.result(30)
    gate.open.set()
    closing.join(30)
    assert not closing.is_alive()
    with pytest.raises(UserError, match="no more requests are taken"):
        submit(crew)
    assert not [thread for thread in threading.enumerate() if thread.name in ("s0-0", "s1-0")]
    crew.close()


AT_THE_END = """
import time
from dataclasses import dataclass, field
from wanc.runtime.crew import Crew, Quota
from wanc.runtime.checkpoint import checkpoint
from wanc.runtime.flow import Limits, StageQueue
from wanc.runtime.ticket import Ticket

@dataclass(eq=False)
class Job:
    ticket: Ticket = field(default_factory=Ticket)

def work(job, hand_on):
    print("begun", flush=True)
    try:
        while True:
            checkpoint()
            time.sleep(0.001)
    finally:
        print("ended", flush=True)

crew = Crew([(StageQueue("s"), Quota(), work)], Limits())
crew.submit(Job(), tenant="", cost=1)
crew.submit(Job(), tenant="", cost=1)
while not crew._flow._queues[0].count("") == 1:
    time.sleep(0.001)
"""


def test_a_program_that_ends_ends_what_is_on_its_way() -> None:
    done = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\nended\n", "")


def test_tenants_take_turns() -> None:
    gate = Gate()
    order: list[str] = []
    crew = crew_of(gate, lambda job, _: order.append(job.name), finish)
    first = submit(crew, "first", "first")
    gate.wait()
    jobs = [submit(crew, name, name) for name in "aaaab"]
    gate.open.set()
    for job in [first, *jobs]:
        job.ticket.result(30)
    assert order[:3] == ["first", "a", "b"]
    crew.close()


def test_each_request_s_work_is_told_as_its_own() -> None:
    def work(job: Job, _: HandOn) -> None:
        with span("work", job.name):
            pass

    with recording() as recorder:
        crew = crew_of(work, finish)
        for name in ("a", "b"):
            submit(crew, name).ticket.result(30)
        cancelled = submit(crew, "c", deadline=1e-9)
        with pytest.raises(DeadlineExceeded):
            cancelled.ticket.result(30)
        crew.close()
    assert [(entry.component, entry.request) for entry in recorder.spans if entry.phase == "work"] == [
        ("a", "1"),
        ("b", "2"),
    ]
    assert {entry.track.name for entry in recorder.spans if entry.track} == {"s0-0"}
    outcomes = {
        dict(labels)["outcome"]: value for (metric, labels), value in recorder.values.items() if metric is REQUESTS
    }
    assert outcomes == {"done": 2, "late": 1}


# Quotas


def test_a_stage_has_as_many_threads_as_its_quota_says() -> None:
    meeting = threading.Barrier(3, timeout=30)
    crew = crew_of(lambda job, _: meeting.wait() and None, finish, s0=Quota(workers=3))
    jobs = [submit(crew, name) for name in "abc"]
    assert [job.ticket.result(30) for job in jobs] == list("abc")
    crew.close()


@pytest.mark.skipif(len(all_cores()) < 2, reason="there is one core")
def test_threads_are_kept_on_the_cores_of_their_stage() -> None:
    one, other = sorted(all_cores())[:2]
    found: dict[str, object] = {}

    def look(name: str) -> Callable[[Job, HandOn], None]:
        def work(job: Job, _: HandOn) -> None:
            made = threading.Thread(target=lambda: found.update({f"{name}, made": os.sched_getaffinity(0)}))
            made.start()
            made.join()
            found[name] = os.sched_getaffinity(0), available_cores(), threads_here(0), threads_here(4)

        return work

    crew = crew_of(look("one"), look("other"), look("any"), finish, s0=Quota(cores=(one,)), s1=Quota(cores=(other,)))
    submit(crew).ticket.result(30)
    crew.close()
    everything = os.sched_getaffinity(0)
    assert found == {
        "one": ({one}, 1, 1, 1),
        "one, made": {one},
        "other": ({other}, 1, 1, 1),
        "other, made": {other},
        "any": (everything, len(everything), 0, 4),
        "any, made": everything,
    }


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        (Quota(workers=0), "0 workers for the stage s0"),
        (Quota(cores=()), r"the cores \[\] for the stage s0"),
        (Quota(cores=(0, 10_000)), r"the cores \[0, 10000\] for the stage s0"),
    ],
)
def test_a_quota_that_this_machine_cannot_give_is_refused(quota: Quota, message: str) -> None:
    before = threading.active_count()
    with pytest.raises(UserError, match=message):
        crew_of(finish, s0=quota)
    assert threading.active_count() == before


def test_threads_that_cannot_be_made_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    start, left = threading.Thread.start, 2

    def failing(thread: threading.Thread) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", failing)
    with pytest.raises(TargetError, match="a thread cannot be made"):
        crew_of(seen("a"), seen("b"), finish)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("s")]
