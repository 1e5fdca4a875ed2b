"""Many requests over one open bundle: each gives what it gives alone, or a typed error, and leaves nothing else."""

from __future__ import annotations

import errno
import gc
import os
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

import wanc as package
from wanc.errors import DeadlineExceeded, RequestCancelled, TooManyRequests, UserError
from wanc.runtime import mp4
from wanc.runtime.crew import Quota
from wanc.runtime.errors import EXIT_IO, TargetError
from wanc.runtime.events import EXECUTIONS, recording
from wanc.runtime.flow import Limits
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.service import STAGES, Service
from wanc.runtime.session import Session

RED, BLUE = "A red circle moves to the left.", "一个蓝色的正方形向上移动。"
SHORT = {"frames": 5, "steps": 2, "seed": 7}
LEAST = {"frames": 1, "steps": 1, "seed": 7}


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return package.open(tiny_bundle, threads=1)


@pytest.fixture
def service(pipeline: Pipeline) -> Iterator[Service]:
    with Service(pipeline) as service:
        yield service


class Held:
    """Holds a graph's executions up until it is let go; says when the first is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, graph: str) -> None:
        self.entered, self.go_on, run = Event(), Event(), Session.run

        def held(session: Session, inputs: Mapping[str, Any]) -> dict[str, Any]:
            if f"/{graph}." in session.shown:
                self.entered.set()
                assert self.go_on.wait(30)
            return run(session, inputs)

        monkeypatch.setattr(Session, "run", held)

    def wait(self) -> None:
        assert self.entered.wait(30)


GRAPHS = ("encode", "step", "first", "steady")
"""What is executed in the first three stages; in the last one it is the encoder of videos that is held up."""


def parts(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_each_gives_what_it_gives_alone(pipeline: Pipeline, tmp_path: Path) -> None:
    alone = {prompt: pipeline.generate(prompt, **SHORT) for prompt in (RED, BLUE)}
    with Service(pipeline) as service:
        held = [service.submit(prompt, **SHORT) for prompt in (RED, BLUE, RED)]
        written = {prompt: service.write(tmp_path / f"{n}.mp4", prompt, **SHORT) for n, prompt in enumerate(alone)}
    for prompt, ticket in zip((RED, BLUE, RED), held, strict=True):
        result = ticket.result()
        np.testing.assert_array_equal(result.frames, alone[prompt].frames)
        np.testing.assert_array_equal(result.latents, alone[prompt].latents)
        assert (result.tags, result.cut, result.fps) == (alone[prompt].tags, alone[prompt].cut, alone[prompt].fps)
        assert set(result.seconds) == {"text", "denoise", "decode"}
    for number, (prompt, ticket) in enumerate(written.items()):
        made = ticket.result()
        assert (made.video, made.prompt, made.frames) == (tmp_path / f"{number}.mp4", prompt, 5)
        alone[prompt].save(tmp_path / "alone.mp4")
        assert made.video.read_bytes() == (tmp_path / "alone.mp4").read_bytes()


def test_stages_of_several_requests_work_at_once(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the second of three is denoised, the first is decoded and the third is encoded: the three meet."""
    run, counts = Session.run, Counter[str]()
    meeting, moments = threading.Barrier(3, timeout=30), set[tuple[str, int]]()

    def meet(session: Session, inputs: Mapping[str, Any]) -> dict[str, Any]:
        thread = threading.current_thread().name
        counts[thread] += 1
        if (thread, counts[thread]) in moments:
            meeting.wait()
        return run(session, inputs)

    with Service(pipeline) as service:
        service.submit("the negative prompt is encoded with the first", **SHORT).result()
        monkeypatch.setattr(Session, "run", meet)
        service.submit("counted", **SHORT).result()
        service.wait()
        each = dict(counts)
        assert each.keys() == {"text-0", "denoise-0", "decode-0"}
        counts.clear()
        moments |= {(stage, times * each[stage]) for stage, times in (("text-0", 3), ("denoise-0", 2), ("decode-0", 1))}
        tickets = [service.submit(f"A red circle moves {way}.", **SHORT) for way in ("left", "right", "up")]
        assert [ticket.result().frames.shape for ticket in tickets] == [(5, 64, 64, 3)] * 3
    assert counts == {stage: 3 * count for stage, count in each.items()}


def test_engines_take_turns_where_they_have_to(pipeline: Pipeline) -> None:
    with recording() as recorder, Service(pipeline, side_by_side=False) as service:
        tickets = [service.submit(prompt, **SHORT) for prompt in (RED, BLUE, RED)]
    by_request: dict[str, list[tuple[float, float]]] = {}
    for span in recorder.spans:
        if span.phase == "execute":
            by_request.setdefault(f"{span.request} {span.component}", []).append((span.start, span.end))
    turns = sorted((min(start for start, _ in own), max(end for _, end in own)) for own in by_request.values())
    assert len(turns) >= 3 * 2
    assert all(end <= start for (_, end), (start, _) in pairwise(turns))
    for prompt, ticket in zip((RED, BLUE, RED), tickets, strict=True):
        np.testing.assert_array_equal(ticket.result().frames, pipeline.generate(prompt, **SHORT).frames)


def test_engines_are_opened_once_however_many_threads_ask(tiny_bundle: Path) -> None:
    pipeline = package.open(tiny_bundle, threads=1)
    quotas = {stage: Quota(workers=4) for stage in STAGES}
    with recording() as recorder, Service(pipeline, quotas=quotas) as service:
        tickets = [service.submit(f"{RED} {number}", tenant=str(number % 3), **SHORT) for number in range(12)]
    first = tickets[0].result()
    assert len({ticket.result().frames.tobytes() for ticket in tickets}) == 12
    loads = Counter((span.component, span.graph) for span in recorder.spans if span.phase == "load")
    assert loads and set(loads.values()) == {1}
    executed = recorder.values[EXECUTIONS, (("component", "vae_decoder"), ("graph", "steady"))]
    assert executed == 12 * (first.latents.shape[2] - 1)
    np.testing.assert_array_equal(first.frames, pipeline.generate(f"{RED} 0", **SHORT).frames)


# Ends


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_request_is_cancelled_wherever_it_is(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, graph: str
) -> None:
    held = Held(monkeypatch, graph)
    ticket = service.write(tmp_path / "out.mp4", f"cancelled in {graph}", **SHORT)
    behind = service.write(tmp_path / "behind.mp4", RED, **SHORT)
    held.wait()
    assert ticket.cancel()
    with pytest.raises(RequestCancelled):
        ticket.result(30)
    held.go_on.set()
    assert behind.result(60).frames == 5
    service.wait()
    assert parts(tmp_path) == ["behind.mp4"]


def test_nothing_more_is_executed_for_what_was_cancelled(
    pipeline: Pipeline, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two executions of one step as well: steps of large models take minutes."""
    service.submit(RED, **SHORT).result()
    held = Held(monkeypatch, "step")
    before = executions(pipeline)
    ticket = service.submit(RED, **SHORT)
    held.wait()
    ticket.cancel()
    held.go_on.set()
    service.wait()
    assert executions(pipeline) - before == 1


def executions(pipeline: Pipeline) -> int:
    """Of the experts' steps."""
    return sum(int(n["executions"]) for graph, n in pipeline.executor.counters().items() if graph.endswith("/step"))


def test_a_request_is_cancelled_while_it_is_written(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entered, go_on, write = Event(), Event(), mp4.Mp4Writer.write

    def held(writer: mp4.Mp4Writer, frames: Any) -> None:
        entered.set()
        assert go_on.wait(30)
        write(writer, frames)

    monkeypatch.setattr(mp4.Mp4Writer, "write", held)
    ticket = service.write(tmp_path / "out.mp4", RED, **SHORT)
    assert entered.wait(30)
    assert len(parts(tmp_path)) == 1, "it grows under another name"
    assert ticket.cancel()
    go_on.set()
    service.wait()
    assert parts(tmp_path) == []


def test_what_is_put_in_place_is_not_cancelled(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entered, go_on, finish = Event(), Event(), mp4.Mp4Writer.finish

    def held(writer: mp4.Mp4Writer) -> None:
        entered.set()
        assert go_on.wait(30)
        finish(writer)

    monkeypatch.setattr(mp4.Mp4Writer, "finish", held)
    ticket = service.write(tmp_path / "out.mp4", RED, **SHORT)
    assert entered.wait(30)
    assert not ticket.cancel()
    go_on.set()
    assert ticket.result(30).video == tmp_path / "out.mp4"
    assert parts(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_deadline_ends_a_request_wherever_it_is(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, graph: str
) -> None:
    """Who waits is told at the deadline, though the engine is busy; what is behind it is done."""
    held = Held(monkeypatch, graph)
    ticket = service.write(tmp_path / "out.mp4", f"late in {graph}", deadline=0.2, **SHORT)
    behind = service.submit(RED, **SHORT)
    with pytest.raises(DeadlineExceeded, match=r"not done within 0\.2 s"):
        ticket.result(30)
    held.go_on.set()
    assert behind.result(60).frames.shape == (5, 64, 64, 3)
    service.wait()
    assert parts(tmp_path) == []


def test_an_interrupted_block_cancels_what_is_on_its_way(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held, tickets = Held(monkeypatch, "step"), []
    threading.Thread(target=lambda: (held.wait(), held.go_on.set())).start()
    with pytest.raises(KeyboardInterrupt), Service(pipeline) as service:
        tickets += [service.write(tmp_path / f"{number}.mp4", RED, **SHORT) for number in range(5)]
        held.wait()
        raise KeyboardInterrupt
    for ticket in tickets:
        with pytest.raises(RequestCancelled):
            ticket.result(0)
    assert parts(tmp_path) == []
    assert not [thread for thread in threading.enumerate() if thread.name.rpartition("-")[0] in STAGES]


def test_an_engine_that_fails_fails_one_request(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, count = Session.run, Counter[str]()

    def failing(session: Session, inputs: Mapping[str, Any]) -> dict[str, Any]:
        count["steady"] += "/steady." in session.shown
        if "/steady." in session.shown and count["steady"] == 2:
            raise TargetError("out of memory")
        return run(session, inputs)

    monkeypatch.setattr(Session, "run", failing)
    tickets = [service.write(tmp_path / f"{number}.mp4", RED, **SHORT) for number in range(3)]
    assert tickets[0].result(60) and tickets[2].result(60)
    with pytest.raises(TargetError, match="out of memory"):
        tickets[1].result(60)
    service.wait()
    assert parts(tmp_path) == ["0.mp4", "2.mp4"]


def test_a_disk_that_gets_full_fails_one_request(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write, count = mp4.Mp4Writer.write, 0

    def full(writer: mp4.Mp4Writer, frames: Any) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(writer, frames)

    monkeypatch.setattr(mp4.Mp4Writer, "write", full)
    tickets = [service.write(tmp_path / f"{number}.mp4", RED, **SHORT) for number in range(2)]
    with pytest.raises(UserError, match="the video cannot be written") as caught:
        tickets[0].result(60)
    assert caught.value.exit_code == EXIT_IO
    assert tickets[1].result(60).frames == 5
    service.wait()
    assert parts(tmp_path) == ["1.mp4"]


@pytest.mark.slow
def test_fifty_requests_of_which_ten_are_cancelled(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Typed errors, memory as before, the next request right, and nothing half-written."""
    expected = pipeline.generate(RED, **LEAST)

    def burst(folder: Path, count: int) -> Counter[str]:
        folder.mkdir()
        held = Held(monkeypatch, "step")
        with Service(pipeline, quotas={"text": Quota(2), "write": Quota(2)}) as service:
            tickets = [
                service.write(folder / f"{number:02}.mp4", RED if number % 2 else BLUE, tenant=str(number % 3), **LEAST)
                for number in range(count)
            ]
            held.wait()
            cancelled = [ticket for ticket in tickets[::5] if ticket.cancel()]
            held.go_on.set()
            for number, ticket in enumerate(tickets):
                if ticket in cancelled:
                    with pytest.raises(RequestCancelled):
                        ticket.result(60)
                else:
                    assert ticket.result(60).video == folder / f"{number:02}.mp4"
        done = [number for number, ticket in enumerate(tickets) if ticket not in cancelled]
        assert parts(folder) == [f"{number:02}.mp4" for number in done]
        assert len({path.read_bytes() for path in folder.iterdir()}) == 2
        monkeypatch.undo()
        return Counter(ticket.outcome for ticket in tickets)

    burst(tmp_path / "warm", 10)
    gc.collect()
    tracemalloc.start()
    try:
        outcomes = burst(tmp_path / "measured", 50)
        gc.collect()
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert outcomes == {"done": 40, "cancelled": 10}
    assert left < 2**18, f"{left} bytes of Python's and numpy's are left"
    np.testing.assert_array_equal(pipeline.generate(RED, **LEAST).frames, expected.frames)


# Refusals


def test_what_cannot_be_made_is_said_at_once(service: Service, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="6 frames cannot be made"):
        service.submit(RED, frames=6)
    with pytest.raises(UserError, match="0 sampling steps"):
        service.write(tmp_path / "out.mp4", RED, steps=0)
    with pytest.raises(UserError, match="the latents are float32"):
        service.submit(RED, latents=np.zeros((1, 16, 1, 8, 8), np.float32))
    with pytest.raises(UserError, match="nothing is written as"):
        service.write(tmp_path / "out.avi", RED, **SHORT)
    with pytest.raises(UserError, match="a deadline of"):
        service.submit(RED, deadline=0, **SHORT)
    with pytest.raises(UserError, match="the video cannot be written"):
        service.write(tmp_path / "absent" / "out.mp4", RED, **SHORT)
    assert parts(tmp_path) == []


def test_more_requests_than_may_wait_are_refused(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, "step")
    with Service(pipeline, limits=Limits(requests=3, tenant_requests=2)) as service:
        tickets = [service.submit(RED, tenant=tenant, **SHORT) for tenant in "aa"]
        with pytest.raises(TooManyRequests, match="2 requests of a wait already"):
            service.submit(RED, tenant="a", **SHORT)
        tickets.append(service.submit(RED, tenant="b", **SHORT))
        with pytest.raises(TooManyRequests, match="3 requests wait already"):
            service.submit(RED, tenant="c", **SHORT)
        held.go_on.set()
    assert all(ticket.result().frames.shape == (5, 64, 64, 3) for ticket in tickets)


def test_a_stage_that_there_is_not_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(UserError, match="there is no stage 'decoder'") as caught:
        Service(pipeline, quotas={"decoder": Quota()})
    assert caught.value.hint == "there are: text, denoise, decode, write"
