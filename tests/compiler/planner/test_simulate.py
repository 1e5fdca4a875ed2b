"""What no simulation may break, whatever flows through it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.compiler.planner.simulate import LOAD, Flow, FlowPhase, Hop, SimulatedRun, simulate

seconds = st.integers(1, 20).map(lambda number: number / 4)
groups = st.sampled_from([(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
hops = st.builds(Hop, groups, seconds, st.sampled_from([0.0, 0.25, 2.0]))
routes = st.lists(hops, min_size=1, max_size=3).map(tuple)
loads = st.one_of(st.just(()), st.lists(st.builds(Hop, groups, seconds), min_size=1, max_size=2).map(tuple))


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    count = draw(st.integers(1, 3))
    return Flow(
        tuple(
            FlowPhase(
                f"phase {index}",
                draw(st.integers(1, 3)),
                tuple(draw(st.lists(routes, min_size=1, max_size=2))),
                draw(loads),
            )
            for index in range(count)
        )
    )


numbers = st.tuples(st.integers(1, 5), st.integers(1, 4))


@settings(max_examples=300, deadline=None)
@given(flows(), numbers)
def test_no_device_does_two_things_at_once(flow: Flow, number: tuple[int, int]) -> None:
    run = simulate(flow, *number)
    for device in range(3):
        work = sorted((one.start, one.end) for one in run.events if device in one.devices)
        assert all(one[1] <= other[0] for one, other in pairwise(work))


def work_of(run: SimulatedRun, request: int, phase: str) -> list[tuple[int, float, float]]:
    return [(one.step, one.start, one.end) for one in run.events if one.request == request and one.what == phase]


@settings(max_examples=300, deadline=None)
@given(flows(), numbers)
def test_everything_is_done_once_and_in_its_order(flow: Flow, number: tuple[int, int]) -> None:
    run = simulate(flow, *number)
    for request in range(number[0]):
        before = 0.0
        for phase in flow.phases:
            for step in range(phase.executions):
                work = [one for one in work_of(run, request, phase.name) if one[0] == step]
                assert len(work) == sum(len(route) for route in phase.routes)
                assert min(one[1] for one in work) >= before
                before = max(one[2] for one in work)
        assert run.finished[request] >= before
    busy = {device: run.busy(device, 0, max(run.finished)) for device in flow.busy}
    assert all(work <= max(run.finished) + 1e-9 for work in busy.values())
    loading = {
        device: sum(one.end - one.start for one in run.events if one.what == LOAD and device in one.devices)
        for device in busy
    }
    for device, work in flow.busy.items():
        assert busy[device] == pytest.approx(number[0] * work + loading[device])


@settings(max_examples=100, deadline=None)
@given(flows(), numbers)
def test_the_same_comes_out_again(flow: Flow, number: tuple[int, int]) -> None:
    assert simulate(flow, *number) == simulate(flow, *number)


@settings(max_examples=100, deadline=None)
@given(flows(), numbers)
def test_no_more_requests_are_under_way_than_may_be(flow: Flow, number: tuple[int, int]) -> None:
    requests, in_flight = number
    run = simulate(flow, requests, in_flight)
    spans = [
        (min(one.start for one in run.events if one.request == request and one.what != LOAD), run.finished[request])
        for request in range(requests)
    ]
    for begin, _ in spans:
        assert sum(start <= begin < end for start, end in spans) <= in_flight


@given(st.lists(st.tuples(seconds, st.integers(1, 4)), min_size=1, max_size=4))
def test_one_request_on_one_device_takes_the_sum(phases: list[tuple[float, int]]) -> None:
    flow = Flow(
        tuple(FlowPhase(str(index), times, ((Hop((0,), each),),)) for index, (each, times) in enumerate(phases))
    )
    assert simulate(flow, 1, 1).finished[0] == pytest.approx(sum(each * times for each, times in phases))


@given(st.lists(seconds, min_size=1, max_size=4), st.integers(1, 6))
def test_equal_executions_through_a_pipeline_take_their_sum_and_wait_for_the_slowest(
    stages: list[float], branches: int
) -> None:
    route = tuple(Hop((index,), each) for index, each in enumerate(stages))
    run = simulate(Flow((FlowPhase("step", 1, (route,) * branches),)), 1, 1)
    assert run.finished[0] == pytest.approx(sum(stages) + (branches - 1) * max(stages))


def test_what_is_sent_takes_its_turn_on_the_link_and_overlaps_with_work() -> None:
    route = (Hop((0,), 1.0, 3.0), Hop((1,), 1.0))
    run = simulate(Flow((FlowPhase("step", 1, (route, route)),)), 1, 1)
    assert [(one.devices, one.start) for one in run.events] == [((0,), 0), ((0,), 1), ((1,), 4), ((1,), 7)]


def test_a_wave_swaps_its_weights_once() -> None:
    swap = (Hop((0,), 10.0),)
    phases = (FlowPhase("high", 2, ((Hop((0,), 1.0),),), swap), FlowPhase("low", 1, ((Hop((0,), 1.0),),), swap))
    run = simulate(Flow(phases), 4, 2)
    done = [one.what for one in run.events]
    wave = [*["high"] * 4, LOAD, *["low"] * 2]
    assert done == [*wave, LOAD, *wave]
    assert run.finished[-1] == 2 * 6 + 3 * 10
