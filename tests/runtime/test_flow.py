"""Who goes next through the stages: fair by work, bounded, and in no other's way. Threads and time are simulated."""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean

import pytest

from wanc.runtime.errors import TooManyRequests
from wanc.runtime.events import QUEUE, recording
from wanc.runtime.fair_queue import MEMORY, MOST_GONE, FairQueue
from wanc.runtime.flow import Admitted, Limits, RequestFlow, StageQueue

STAGES = (StageQueue("text"), StageQueue("denoise"), StageQueue("decode"), StageQueue("write"))


def entries(*tenants: str, cost: float = 1.0) -> list[Admitted[None]]:
    return [Admitted(tenant, cost, number, None) for number, tenant in enumerate(tenants)]


def order(queue: FairQueue[Admitted[None]], count: int) -> str:
    taken = [queue.take(lambda _: True) for _ in range(count)]
    return "".join(entry.tenant for entry in taken if entry is not None)


# One queue


def test_tenants_take_turns_whatever_they_have_brought() -> None:
    queue = FairQueue[Admitted[None]]()
    for entry in entries(*"aaaaabbc"):
        queue.put(entry)
    assert order(queue, 9) == "abcabaaa"
    assert len(queue) == 0


def test_turns_go_by_work_and_not_by_number() -> None:
    queue = FairQueue[Admitted[None]]()
    for number in range(20):
        queue.put(Admitted("long", 4.0, 2 * number, None))
        queue.put(Admitted("short", 1.0, 2 * number + 1, None))
    assert sorted(order(queue, 10)) == sorted("long" * 2 + "short" * 8)


def test_of_one_tenant_the_first_comes_first() -> None:
    queue = FairQueue[Admitted[None]]()
    put = entries(*"aaaa")
    for entry in put:
        queue.put(entry)
    assert [queue.take(lambda _: True) for _ in put] == put


def test_who_was_away_has_saved_little_up() -> None:
    """Who has got nothing for long goes first until both have got as much lately, and then takes turns."""
    queue = FairQueue[Admitted[None]]()
    for entry in entries(*"a" * 400):
        queue.put(entry)
    assert order(queue, 200) == "a" * 200
    for number in range(100):
        queue.put(Admitted("b", 1.0, 1000 + number, None))
    ahead = order(queue, MEMORY).index("a")
    assert ahead < MEMORY
    order(queue, MEMORY)
    assert order(queue, 10).count("b") == 5


def test_who_asks_for_little_is_next() -> None:
    queue = FairQueue[Admitted[None]]()
    for entry in entries(*"a" * 100):
        queue.put(entry)
    assert order(queue, 7) == "a" * 7
    queue.put(Admitted("b", 1.0, 1000, None))
    assert order(queue, 1) == "b"


def test_what_was_dropped_has_cost_nothing() -> None:
    queue = FairQueue[Admitted[None]]()
    dropped = entries(*"a" * 10, cost=100.0)
    for entry in [*dropped, Admitted("a", 1.0, 20, None), Admitted("b", 1.0, 21, None)]:
        queue.put(entry)
    assert [queue.drop(entry) for entry in dropped] == [True] * 10
    assert not queue.drop(dropped[0])
    assert order(queue, 2) == "ab"


def test_who_may_not_go_is_passed_and_keeps_the_turn() -> None:
    queue = FairQueue[Admitted[None]]()
    for entry in entries(*"aabb"):
        queue.put(entry)
    passed = queue.take(lambda entry: entry.tenant != "a")
    assert passed is not None and passed.tenant == "b"
    assert queue.take(lambda _: False) is None
    assert order(queue, 3) == "aba"


def test_little_is_remembered_of_tenants_that_are_gone() -> None:
    queue = FairQueue[Admitted[None]]()
    for number in range(1000):
        queue.put(Admitted("always", 1.0, 2 * number, None))
        queue.put(Admitted(f"tenant {number}", 1.0, 2 * number + 1, None))
        order(queue, 1)
    assert len(queue._done) <= len(queue._waiting) + MOST_GONE
    order(queue, 1001)
    assert not queue._waiting and len(queue._done) <= MOST_GONE


# All stages


def flow_of(*tenants: str, stages: Iterable[StageQueue] = STAGES, limits: Limits | None = None) -> RequestFlow[None]:
    flow = RequestFlow[None](list(stages), limits or Limits())
    for entry in entries(*tenants):
        flow.admit(entry)
    return flow


def through(flow: RequestFlow[None], stage: int) -> Admitted[None]:
    """A stage works on a request, and hands it on."""
    entry = flow.take(stage)
    assert entry is not None
    if stage + 1 < len(STAGES):
        flow.hand_on(stage, entry)
    flow.leave(stage, entry, handed_on=True)
    return entry


def test_a_request_passes_all_stages_and_leaves_nothing() -> None:
    flow = flow_of("a")
    for stage in range(4):
        assert not flow.is_empty
        assert flow.take((stage + 1) % 4) is None
        through(flow, stage)
    assert flow.is_empty
    assert not any(kept for kept in flow._kept)


def test_a_tenant_fills_no_queue() -> None:
    flow = flow_of(*"aaab")
    assert through(flow, 0).tenant == "a"
    assert through(flow, 0).tenant == "b", "the others of a stay where they hinder nobody"
    assert flow.take(0) is None
    assert through(flow, 1).tenant == "a"
    assert through(flow, 0).tenant == "a"


def test_what_is_half_done_is_bounded() -> None:
    stages = [StageQueue("first"), StageQueue("second", room=3)]
    flow = flow_of(*"abcdef", stages=stages)
    taken = [flow.take(0) for _ in range(4)]
    assert [entry is not None for entry in taken] == [True, True, True, False], "rooms are kept for what is in hands"
    first = taken[0]
    assert first is not None
    flow.hand_on(0, first)
    flow.leave(0, first, handed_on=True)
    assert flow.take(0) is None
    assert flow.take(1) is first
    assert flow.take(0) is not None


def test_a_stage_that_fails_frees_the_room_that_it_kept() -> None:
    flow = flow_of(*"aa")
    failed = flow.take(0)
    assert failed is not None and flow.take(0) is None
    flow.leave(0, failed, handed_on=False)
    assert through(flow, 0).tenant == "a"


def test_a_stage_may_be_at_work_on_what_it_has_handed_on() -> None:
    flow = flow_of("a", stages=[StageQueue("decode"), StageQueue("write")])
    entry = flow.take(0)
    assert entry is not None
    flow.hand_on(0, entry)
    assert flow.take(1) is entry
    flow.leave(1, entry, handed_on=True)
    assert not flow.is_empty
    flow.leave(0, entry, handed_on=True)
    assert flow.is_empty


@pytest.mark.parametrize("stage", range(4))
def test_what_waits_is_dropped_wherever_it_is(stage: int) -> None:
    flow = flow_of(*"ab")
    for earlier in range(stage):
        through(flow, earlier)
        through(flow, earlier)
    queued = next(iter(flow._queues[stage]._waiting["a"]))
    flow.drop(queued)
    flow.drop(queued)
    left = flow.take(stage)
    assert left is not None and left.tenant == "b"
    flow.leave(stage, left, handed_on=False)
    assert flow.is_empty


def test_more_than_may_wait_are_refused() -> None:
    flow = flow_of(*"aab", limits=Limits(requests=4, tenant_requests=2))
    with pytest.raises(TooManyRequests, match="2 requests of a wait already"):
        flow.admit(Admitted("a", 1.0, 10, None))
    flow.admit(Admitted("c", 1.0, 11, None))
    with pytest.raises(TooManyRequests, match="4 requests wait already"):
        flow.admit(Admitted("d", 1.0, 12, None))
    for stage in range(4):
        through(flow, stage)
    flow.admit(Admitted("a", 1.0, 13, None))


def test_queues_are_told_and_who_waited_for_what() -> None:
    with recording() as recorder:
        flow = flow_of("a")
        for stage in range(4):
            through(flow, stage)
    lengths = [(dict(sample.labels)["stage"], sample.value) for sample in recorder.samples if sample.metric is QUEUE]
    assert lengths == [(stage.name, length) for stage in STAGES for length in (1, 0)]
    assert [(span.phase, span.component) for span in recorder.spans] == [("wait", stage.name) for stage in STAGES]


# Simulated time

SECONDS = (0.1, 1.0, 0.5, 0.2)
"""What a request takes in each stage, with one worker in each."""


@dataclass
class Simulation:
    """Stages with a worker each, on a clock that jumps from event to event."""

    arrivals: list[tuple[float, str]]
    seconds: tuple[float, ...] = SECONDS

    def latencies(self) -> dict[str, list[float]]:
        """By tenant, of every request from its arrival until it is written."""
        flow = RequestFlow[None](STAGES, Limits(10**6, 10**6))
        events: list[tuple[float, int, int, Admitted[None]]] = []
        for number, (at, tenant) in enumerate(sorted(self.arrivals)):
            heapq.heappush(events, (at, number, -1, Admitted(tenant, 1.0, number, None)))
        busy = [False] * len(STAGES)
        began: dict[int, float] = {}
        found: dict[str, list[float]] = defaultdict(list)
        count = len(events)
        while events:
            now, _, stage, entry = heapq.heappop(events)
            if stage < 0:
                began[entry.number] = now
                flow.admit(entry)
            else:
                busy[stage] = False
                if stage + 1 < len(STAGES):
                    flow.hand_on(stage, entry)
                else:
                    found[entry.tenant].append(now - began[entry.number])
                flow.leave(stage, entry, handed_on=True)
            # From the last stage to the first: what is taken makes room for what comes from before.
            for free in reversed([index for index, is_busy in enumerate(busy) if not is_busy]):
                taken = flow.take(free)
                if taken is not None:
                    busy[free] = True
                    count += 1
                    heapq.heappush(events, (now + self.seconds[free], count, free, taken))
        assert flow.is_empty
        return found


def arrivals(tenant: str, every: float, until: float, seed: int) -> list[tuple[float, str]]:
    """Requests at random moments, one in so many seconds on average."""
    generator, found, at = random.Random(seed), list[tuple[float, str]](), 0.0
    while (at := at + generator.expovariate(1 / every)) < until:
        found.append((at, tenant))
    return found


def others_latency(latencies: dict[str, list[float]]) -> float:
    """The mean of all tenants but the tenth."""
    return mean(latency for tenant, found in latencies.items() if tenant != "tenth" for latency in found)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("load", [0.3, 0.6, 0.75])
def test_nine_tenants_hardly_notice_a_tenth_that_is_greedy(load: float, seed: int) -> None:
    """Ten tenants ask at random; then one of them asks for fifty times as much, far more than can be done.

    What they do notice is that the stage is busy when they come, with half of a request on average: that is a larger
    part of what they wait where nobody else asked for much.
    """
    until, every = 800.0, 10 / load
    others = [entry for tenant in range(9) for entry in arrivals(f"tenant {tenant}", every, until, 100 * seed + tenant)]
    tenth, greedy = (arrivals("tenth", every / times, until, 100 * seed + 9) for times in (1, 50))
    before = Simulation([*others, *tenth]).latencies()
    beside = Simulation([*others, *greedy]).latencies()
    assert len(beside["tenth"]) > 10 * len(before["tenth"]), "the greedy one gets what the others leave"
    assert others_latency(beside) <= others_latency(before) + max(SECONDS) / 2 + 0.1
    if load > 0.5:
        assert others_latency(beside) <= 1.2 * others_latency(before)
    in_turn = Simulation([(at, "all") for at, _ in [*others, *greedy]]).latencies()
    assert mean(in_turn["all"]) > 10 * others_latency(before), "without tenants they would wait for all of it"


def test_tenants_who_wait_for_each_result_before_they_ask_again() -> None:
    """Ten tenants of whom each always has a request: it makes no difference how many one of them has."""
    always = [(0.0, f"tenant {tenant}") for tenant in range(9) for _ in range(20)]
    before = Simulation([*always, *[(0.0, "tenth")] * 20]).latencies()
    beside = Simulation([*always, *[(0.0, "tenth")] * 2000]).latencies()
    assert others_latency(beside) <= 1.02 * others_latency(before)


def test_requests_overlap() -> None:
    """Eight at once take as long as the longest stage does for all of them, and what comes before and behind it."""
    found = Simulation([(0.0, "a")] * 8).latencies()["a"]
    assert max(found) == pytest.approx(8 * max(SECONDS) + sum(SECONDS) - max(SECONDS))
