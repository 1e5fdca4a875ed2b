"""The plan beside a run: what a trace says of the devices, and what it cannot be read as."""

from __future__ import annotations

import json
import time
from pathlib import Path
from threading import Thread

import pytest

from wanc.compiler.planner.simulate import Flow, FlowPhase, Hop, simulate
from wanc.compiler.planner.traced import TracedRun, shares
from wanc.errors import UserError
from wanc.runtime.errors import BundleError
from wanc.runtime.events import recording, span
from wanc.runtime.trace import write_trace

DEVICES = ("cpu.0", "cpu.1")


def trace(path: Path, *spans: tuple[str, str, float, float, str, str]) -> Path:
    """A trace of spans: device, what it does, start and duration in seconds, request, component."""
    tracks = {device: number for number, device in enumerate(dict.fromkeys(entry[0] for entry in spans), 7)}
    named = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": number, "args": {"name": device}}
        for device, number in tracks.items()
    ]
    done = [
        {"ph": "X", "name": "x", "cat": what, "pid": 1, "tid": tracks[device], "ts": start * 1e6, "dur": length * 1e6,
         "args": {"component": component, "graph": "step", "request": request}}
        for device, what, start, length, request, component in spans
    ]  # fmt: skip
    path.write_text(json.dumps({"traceEvents": [*named, *done]}))
    return path


PIPELINED = (
    ("main", "encode", 0.0, 9.0, "1", "text_encoder"),
    ("cpu.0", "execute", 1.0, 1.0, "1", "denoiser_high"),
    ("cpu.0", "execute", 2.0, 1.0, "2", "denoiser_high"),
    ("cpu.1", "execute", 2.0, 2.0, "1", "vae_decoder"),
    ("cpu.1", "execute", 4.0, 1.0, "2", "vae_decoder"),
    ("cpu.0", "send", 3.0, 0.4, "1", "denoiser_high"),
)


def test_a_trace_is_read_as_the_simulator_tells_a_run(tmp_path: Path) -> None:
    traced = TracedRun.read(trace(tmp_path / "run.json", *PIPELINED), DEVICES)
    assert [(event.devices, event.what, event.request, event.start, event.end) for event in traced.run.events] == [
        ((0,), "denoise_high", 0, 0.0, 1.0),
        ((0,), "denoise_high", 1, 1.0, 2.0),
        ((1,), "decode", 0, 1.0, 3.0),
        ((1,), "decode", 1, 3.0, 4.0),
    ]
    assert traced.run.finished == (3.0, 4.0)
    found = traced.shares(2)
    assert (found.waiting, found.sending) == pytest.approx((3 / 8, 0.4 / 8))


def test_what_the_runtime_writes_is_read(tmp_path: Path) -> None:
    """Threads that are called like devices are devices."""
    with recording() as recorder:

        def work() -> None:
            with span("execute", "denoiser_high", "step"):
                pass

        for device in DEVICES:
            thread = Thread(target=work, name=device)
            thread.start()
            thread.join()
    with (tmp_path / "run.json").open("wb") as file:
        write_trace(file, recorder, time.perf_counter())
    traced = TracedRun.read(tmp_path / "run.json", DEVICES)
    assert [event.devices for event in traced.run.events] in ([(0,), (1,)], [(1,), (0,)])


def test_shares_of_a_simulated_run() -> None:
    """One request on two devices: each waits while the other works."""
    run = simulate(Flow((FlowPhase("denoise_high", 2, ((Hop((0,), 1.0), Hop((1,), 1.0)),)),)), 1, 1)
    found = shares(run, (0, 1), 0.8)
    assert (found.waiting, found.sending) == pytest.approx((0.5, 0.1))


def test_a_trace_of_another_placement_is_refused(tmp_path: Path) -> None:
    path = trace(tmp_path / "run.json", *(entry for entry in PIPELINED if entry[0] != "cpu.1"))
    with pytest.raises(UserError, match=r"run\.json: nothing in it was executed by cpu\.1"):
        TracedRun.read(path, DEVICES)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"traceEvents": 1}', b'{"traceEvents": [{"ph": "X", "cat": 1}]}']
)
def test_what_is_no_trace_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises((BundleError, UserError)) as caught:
        TracedRun.read(path, DEVICES)
    assert str(path) in str(caught.value)


def test_a_trace_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        TracedRun.read(tmp_path / "none.json", DEVICES)
    assert caught.value.hint == "name a file that wanc run --trace wrote"
