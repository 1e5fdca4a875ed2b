"""What happens is told from any thread, costs nothing while nobody listens, and is kept in bounded memory."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from wanc.runtime import events
from wanc.runtime.events import (
    CACHE_HITS,
    EXECUTIONS,
    LOADS,
    QUEUE,
    RESIDENT,
    Metric,
    Recorder,
    Sample,
    Span,
    Total,
    count,
    for_request,
    gauge,
    is_recording,
    recording,
    span,
    waited,
)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock's time, which goes where a test puts it."""
    time = [0.0]
    monkeypatch.setattr(events, "clock", lambda: time[0])
    return time


def test_nobody_listens_and_nothing_is_made() -> None:
    assert not is_recording()
    assert span("load", "denoiser") is span("execute"), "there is one object that stands for all that nobody wants"
    with span("load"):
        count(LOADS, component="denoiser", graph="step")
        gauge(QUEUE, 3, stage="text")
    with recording() as recorder:
        assert is_recording()
    assert (recorder.spans, recorder.samples, recorder.values, recorder.totals) == ([], [], {}, {})
    assert not is_recording()


def test_a_span_says_what_when_where_and_for_whom(now: list[float]) -> None:
    with recording() as recorder:
        with for_request("7"), span("denoise"):
            now[0] = 1.0
            with span("execute", "denoiser_high", "step"):
                now[0] = 3.0
            now[0] = 4.0
        with span("verify"):
            pass
    here = events.Track(threading.get_native_id(), threading.current_thread().name)
    assert recorder.spans == [
        Span("execute", 1.0, 3.0, here, "denoiser_high", "step", "7"),
        Span("denoise", 0.0, 4.0, here, request="7"),
        Span("verify", 4.0, 4.0, here),
    ]
    assert recorder.totals["execute", "denoiser_high", "step"] == Total(1, 2.0)


def test_what_fails_is_a_span_as_well(now: list[float]) -> None:
    with recording() as recorder, pytest.raises(ZeroDivisionError), span("load"):
        now[0] = 2.0
        raise ZeroDivisionError
    assert [(entry.phase, entry.end) for entry in recorder.spans] == [("load", 2.0)]


def test_waiting_belongs_to_no_thread(now: list[float]) -> None:
    with recording() as recorder:
        now[0] = 5.0
        waited("wait", 2.0, "denoise", "3")
    assert recorder.spans == [Span("wait", 2.0, 5.0, None, "denoise", request="3")]


def test_counters_grow_and_gauges_are_set(now: list[float]) -> None:
    with recording() as recorder:
        count(EXECUTIONS, graph="step", component="denoiser")
        now[0] = 1.0
        count(EXECUTIONS, 2, component="denoiser", graph="step")
        gauge(QUEUE, 4, stage="text")
        gauge(QUEUE, 1, stage="text")
    series = (EXECUTIONS, (("component", "denoiser"), ("graph", "step")))
    assert recorder.values == {series: 3.0, (QUEUE, (("stage", "text"),)): 1.0}
    assert recorder.samples[:2] == [Sample(*series, 0.0, 1.0), Sample(*series, 1.0, 3.0)]


def test_everybody_who_listens_is_told() -> None:
    with recording() as first:
        count(LOADS)
        with recording(Recorder()) as second, span("load"):
            count(LOADS)
        count(LOADS)
    assert (first.values[LOADS, ()], second.values[LOADS, ()]) == (3, 1)
    assert len(first.spans) == len(second.spans) == 1


def test_memory_is_bounded() -> None:
    recorder = Recorder(most_kept=3, most_series=2)
    with recording(recorder):
        for number in range(10):
            with span(f"phase {number % 2}"):
                count(CACHE_HITS, cache=f"cache {number % 2}")
    assert [entry.phase for entry in recorder.spans] == ["phase 1", "phase 0", "phase 1"]
    assert [sample.value for sample in recorder.samples] == [4, 5, 5]
    assert recorder.dropped == 14
    assert {work: total.count for work, total in recorder.totals.items()} == {
        ("phase 0", "", ""): 5,
        ("phase 1", "", ""): 5,
    }, "the totals are those of all"
    with recording(recorder):
        count(CACHE_HITS, cache="one too many")
        gauge(RESIDENT, 1, budget="device", kind="weights")
        with span("one too many"):
            pass
    assert len(recorder.values) == len(recorder.totals) == 2
    assert recorder.dropped == 14 + 2 + 2, "the last span took an older one's place, and stands in no total"


def test_threads_tell_at_once() -> None:
    def work(number: int) -> None:
        with for_request(str(number)):
            for _ in range(500):
                with span("work"):
                    count(EXECUTIONS)

    with recording() as recorder, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert recorder.values[EXECUTIONS, ()] == 2000
    assert recorder.totals["work", "", ""].count == len(recorder.spans) == 2000
    by_request = {entry.request: 0 for entry in recorder.spans}
    for entry in recorder.spans:
        by_request[entry.request] += 1
    assert by_request == {str(number): 500 for number in range(4)}


def test_metrics_are_named_as_prometheus_wants_it() -> None:
    metrics = [entry for entry in vars(events).values() if isinstance(entry, Metric)]
    assert len({metric.name for metric in metrics}) == len(metrics) >= 10
    for metric in metrics:
        assert re.fullmatch(r"wanc_[a-z][a-z0-9_]*", metric.name)
        assert metric.about and not metric.about.endswith(".")
