"""A run as a file that Perfetto and Chrome's own viewer show: JSON of trace events, a track for each thread.

Counters and gauges are curves over time, the process's memory among them. What waits, as a request in a queue does,
has a track of its own. The format is Google's "Trace Event Format": times are microseconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any

from . import events
from .destination import STDOUT, reporting
from .errors import UserError
from .events import RSS, Recorder, Sample, Span, Track
from .memory import rss_bytes
from .whole_file import require_writable, whole_file

WHAT, SUFFIX = "the trace", ".json"
SAMPLING_SECONDS = 0.02


@contextmanager
def tracing(file: str | Path | None) -> Generator[None]:
    """What happens in the block is written to `file`, whether it ends well or with an error; nothing where that is
    None, or where the block is interrupted.

    Raises UserError: before the block where no trace can be written there, exit code 74 behind it where writing fails.
    """
    if file is None:
        yield
        return
    path = Path(file)
    if path == STDOUT or path.suffix.lower() != SUFFIX:
        name = f"{path.name}{SUFFIX}" if path != STDOUT and path.name else f"trace{SUFFIX}"
        raise UserError(f"a trace is written into a {SUFFIX} file", where=str(path), hint=f"name it {name}")
    require_writable(path, WHAT)
    started = events.clock()
    with events.recording() as recorder, _memory_sampled():
        try:
            yield
        except Exception:
            # How it came to this is what somebody will want to see; that it did is what counts.
            with suppress(UserError):
                _write(path, recorder, started)
            raise
    _write(path, recorder, started)


def trace_events(recorder: Recorder, started: float) -> Iterator[dict[str, Any]]:
    """The events of a trace that begins at `started`, in seconds of `events.clock`."""
    spans, process = recorder.spans, os.getpid()
    yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": "wanc"}}
    for track in dict.fromkeys(span.track for span in spans):
        if track is not None:
            name = {"name": "thread_name", "args": {"name": track.name}}
            yield {"ph": "M", "pid": process, "tid": track.number, **name}
    for span in spans:
        yield from _span_events(span, process, started)
    for sample in recorder.samples:
        yield _sample_event(sample, process, started)


def write_trace(file: IO[bytes], recorder: Recorder, started: float) -> None:
    """Write them all, one in each line."""
    file.write(b'{"displayTimeUnit": "ms", "otherData": {"dropped": %d}, "traceEvents": [' % recorder.dropped)
    for number, event in enumerate(trace_events(recorder, started)):
        file.write(b",\n" if number else b"\n")
        file.write(json.dumps(event).encode())
    file.write(b"\n]}\n")


def _write(path: Path, recorder: Recorder, started: float) -> None:
    with whole_file(path, WHAT) as file, reporting(path, WHAT):
        write_trace(file, recorder, started)


def _span_events(span: Span, process: int, started: float) -> Iterator[dict[str, Any]]:
    work = f"{span.component}/{span.graph}".strip("/")
    name = f"{span.phase} {work}".strip()
    asked = {key: value for key in ("component", "graph", "request") if (value := getattr(span, key))}
    event = {"name": name, "cat": span.phase, "pid": process, "args": asked}
    if isinstance(span.track, Track):
        duration = _microseconds(span.end - span.start)
        yield {**event, "ph": "X", "tid": span.track.number, "ts": _microseconds(span.start - started), "dur": duration}
        return
    # What no thread does lies beside the threads, in a track for each request.
    for phase, at in (("b", span.start), ("e", span.end)):
        yield {**event, "ph": phase, "cat": "request", "id": span.request, "tid": 0, "ts": _microseconds(at - started)}


def _sample_event(sample: Sample, process: int, started: float) -> dict[str, Any]:
    labels = " ".join(value for _, value in sample.labels)
    name = f"{sample.metric.name} {labels}".strip()
    at = _microseconds(sample.at - started)
    return {"ph": "C", "name": name, "pid": process, "tid": 0, "ts": at, "args": {"value": sample.value}}


def _microseconds(seconds: float) -> float:
    return round(max(seconds, 0.0) * 1e6, 3)


@contextmanager
def _memory_sampled() -> Generator[None]:
    """Tell how much memory the process holds, again and again."""
    ended = Event()

    def sample() -> None:
        while True:
            events.gauge(RSS, rss_bytes())
            if ended.wait(SAMPLING_SECONDS):
                return

    thread = Thread(target=sample, name="memory", daemon=True)
    try:
        with suppress(RuntimeError):  # there cannot be another thread: then the trace has no such curve
            thread.start()
        yield
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()
