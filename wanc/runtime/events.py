"""What happens in a run: spans of time, counters and gauges. A trace shows them; as metrics they keep their names.

Whoever works tells it with `span`, `count` and `gauge`, from any thread, and does not know who listens. While nobody
does, telling is a look at one variable; a `Recorder` listens within `recording`, in bounded memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import TypeAlias

clock = time.perf_counter
"""Seconds, from some moment on: what spans and samples are dated by."""

MOST_KEPT = 200_000
"""Spans, and samples, that a recorder holds: some hundred bytes each. The oldest go first."""
MOST_SERIES = 10_000
"""Names with labels that a recorder adds up: labels are graphs and caches, never what a user has typed."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that is counted or measured, by the name that it has in Prometheus, whose rules of naming it follows.

    A counter only grows and its name ends in `_total`; a gauge is what a thing is at the moment.
    """

    name: str
    about: str


EXECUTIONS = Metric("wanc_graph_executions_total", "Executions of a graph; by component and graph")
GRAPH_BYTES = Metric("wanc_graph_bytes_total", "Bytes of a graph's inputs and outputs; by component and graph")
LOADS = Metric("wanc_engine_loads_total", "Engine files that were opened; by component and graph")
EVICTIONS = Metric("wanc_engine_evictions_total", "Engine files that were closed to make room; by component and graph")
CACHE_HITS = Metric("wanc_cache_hits_total", "What was found in a cache; by cache")
CACHE_MISSES = Metric("wanc_cache_misses_total", "What was looked for in a cache in vain; by cache")
REQUESTS = Metric("wanc_requests_total", "Requests that have ended; by outcome")
QUEUE = Metric("wanc_queue_length", "Requests that wait for a stage; by stage")
RSS = Metric("wanc_rss_bytes", "Memory that the process holds, mapped files counted")
RESIDENT = Metric("wanc_resident_bytes", "Bytes that a budget accounts for; by budget and kind")
POOL = Metric("wanc_pool_bytes", "Bytes that the pool of arrays holds, in use or kept")
POOL_TAKEN = Metric("wanc_pool_taken_bytes_total", "Bytes that the pool of arrays took from the system")

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Sorted by name."""


@dataclass(frozen=True, slots=True)
class Track:
    """Where something happened: a thread, or a process of a device's, by its number and its name."""

    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took from `start` to `end`, in seconds of `clock`.

    `phase` says what it was; component, graph and request what it was done for, empty where that is nobody's. Spans of
    one `track` lie within or behind each other; a span without one belongs to its request, beside whatever is done.
    """

    phase: str
    start: float
    end: float
    track: Track | None
    component: str = ""
    graph: str = ""
    request: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a counter had come to, or what a gauge was, at a moment of `clock`."""

    metric: Metric
    labels: Labels
    at: float
    value: float


@dataclass
class Total:
    """All spans of a phase, component and graph: how many, and their seconds."""

    count: int = 0
    seconds: float = 0.0


Series: TypeAlias = tuple[Metric, Labels]
Work: TypeAlias = tuple[str, str, str]
"""A phase, a component and a graph."""


class Recorder:
    """Collects what is told: the latest spans and samples themselves, and the totals of all.

    `spans` and `samples` are in the order in which they ended. `dropped` counts those that are no longer there, and
    what was not added up because there were too many names.
    """

    def __init__(self, *, most_kept: int = MOST_KEPT, most_series: int = MOST_SERIES) -> None:
        self._spans: deque[Span] = deque(maxlen=most_kept)
        self._samples: deque[Sample] = deque(maxlen=most_kept)
        self._values: dict[Series, float] = {}
        self._totals: dict[Work, Total] = {}
        self._most_series = most_series
        self._dropped = 0
        self._lock = Lock()

    def add(self, span: Span) -> None:
        """Keep a span that has ended."""
        work = (span.phase, span.component, span.graph)
        with self._lock:
            self._dropped += len(self._spans) == self._spans.maxlen
            self._spans.append(span)
            if work not in self._totals and len(self._totals) >= self._most_series:
                self._dropped += 1
                return
            total = self._totals.setdefault(work, Total())
            total.count += 1
            total.seconds += span.end - span.start

    def count(self, metric: Metric, labels: Labels, at: float, amount: float) -> None:
        """Add to a counter."""
        self._note(metric, labels, at, amount, adds=True)

    def gauge(self, metric: Metric, labels: Labels, at: float, value: float) -> None:
        """Set a gauge."""
        self._note(metric, labels, at, value, adds=False)

    @property
    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)

    @property
    def samples(self) -> list[Sample]:
        with self._lock:
            return list(self._samples)

    @property
    def values(self) -> Mapping[Series, float]:
        """What each counter has come to, and what each gauge was last."""
        with self._lock:
            return dict(self._values)

    @property
    def totals(self) -> Mapping[Work, Total]:
        with self._lock:
            return {work: Total(total.count, total.seconds) for work, total in self._totals.items()}

    @property
    def dropped(self) -> int:
        with self._lock:
            return self._dropped

    def _note(self, metric: Metric, labels: Labels, at: float, amount: float, *, adds: bool) -> None:
        series = (metric, labels)
        with self._lock:
            if series not in self._values and len(self._values) >= self._most_series:
                self._dropped += 1
                return
            value = self._values.get(series, 0.0) + amount if adds else amount
            self._values[series] = value
            self._dropped += len(self._samples) == self._samples.maxlen
            self._samples.append(Sample(metric, labels, at, value))


_recorders: tuple[Recorder, ...] = ()
_changing = Lock()
_request: ContextVar[str] = ContextVar("request", default="")
_NOTHING = nullcontext()


@contextmanager
def recording(recorder: Recorder | None = None) -> Generator[Recorder]:
    """`with recording() as recorder:` all that is told meanwhile, by any thread of the process."""
    global _recorders
    listener = recorder or Recorder()
    with _changing:
        _recorders = (*_recorders, listener)
    try:
        yield listener
    finally:
        with _changing:
            _recorders = tuple(entry for entry in _recorders if entry is not listener)


def is_recording() -> bool:
    """Whether anybody listens: for those who would have to find out first what they tell."""
    return bool(_recorders)


@contextmanager
def for_request(request: str) -> Generator[None]:
    """What this thread does in the block, it does for that request."""
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


def span(phase: str, component: str = "", graph: str = "") -> AbstractContextManager[object]:
    """`with span("load", "denoiser_high"):` the block is a span of this thread, whether it ends well or not."""
    return _Running(phase, component, graph) if _recorders else _NOTHING


def waited(phase: str, start: float, component: str = "", request: str = "") -> None:
    """What no thread has done ends now: a span from `start` until here that belongs to its request alone."""
    if _recorders:
        _tell(Span(phase, start, clock(), None, component, "", request))


def done_elsewhere(phase: str, start: float, end: float, track: Track, component: str, graph: str) -> None:
    """A span of another process of this machine, done for the request of this thread.

    On Linux `clock` is the same for all of them: CLOCK_MONOTONIC.
    """
    if _recorders:
        _tell(Span(phase, start, end, track, component, graph, _request.get()))


def count(metric: Metric, amount: float = 1, **labels: str) -> None:
    """So many more of what a counter counts, such as `count(LOADS, component="text_encoder", graph="encode")`."""
    if recorders := _recorders:
        named, now = tuple(sorted(labels.items())), clock()
        for recorder in recorders:
            recorder.count(metric, named, now, amount)


def gauge(metric: Metric, value: float, **labels: str) -> None:
    """What a gauge is from now on."""
    if recorders := _recorders:
        named, now = tuple(sorted(labels.items())), clock()
        for recorder in recorders:
            recorder.gauge(metric, named, now, value)


class _Running:
    """A span that has begun."""

    __slots__ = ("_start", "_work")

    def __init__(self, *work: str) -> None:
        self._work = work

    def __enter__(self) -> None:
        self._start = clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        phase, component, graph = self._work
        track = Track(threading.get_native_id(), threading.current_thread().name)
        _tell(Span(phase, self._start, clock(), track, component, graph, _request.get()))


def _tell(span: Span) -> None:
    for recorder in _recorders:
        recorder.add(span)
