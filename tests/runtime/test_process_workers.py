"""Devices as processes of their own: the same results as threads give, in memory that they share."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np

from wanc.runtime.engine_file import EngineFile, RankExchange
from wanc.runtime.events import EXECUTIONS, LOADS, clock, for_request, recording
from wanc.runtime.pool import ArrayPool
from wanc.runtime.segments import Segments
from wanc.runtime.value import Value
from wanc.runtime.workers.micro_batches import run_micro_batches
from wanc.runtime.workers.shared_memory import SharedBlock

from .devices import (
    DEVICES,
    LONG,
    NOISE,
    PLUS,
    children,
    executor_on,
    nothing_is_left,
    pytestmark,
    results,
    segments_on,
    workers_on,
)
from .test_executor import KEY, write
from .test_wire import descriptors

__all__ = ["nothing_is_left", "pytestmark"]


def test_processes_give_what_threads_and_one_device_give(tmp_path: Path) -> None:
    found: dict[tuple[str, str], list[bytes]] = {}
    for transport, devices in (("threads", ("cpu",) * 3), ("threads", DEVICES), ("processes", DEVICES)):
        executor = executor_on(devices, tmp_path, transport)
        for _ in range(2):
            found[transport, devices[1]] = results(executor)
        counted = executor.counters()["denoiser/step"]
        assert counted["executions"] == 8 and counted["seconds"] > 0
        del executor
    assert len({tuple(outputs) for outputs in found.values()}) == 1


def test_warm_requests_take_no_new_memory_and_no_new_process(tmp_path: Path) -> None:
    executor = executor_on(DEVICES, tmp_path, "processes")
    for _ in range(3):
        results(executor)
    processes, before = children(), len(descriptors())
    assert len(processes) == 2
    for _ in range(20):
        results(executor)
    assert children() == processes
    # As much as is needed at once depends on who is ahead: a few blocks more. Each request has 20 values.
    assert len(descriptors()) - before < 20
    executor.close(KEY[0])  # and it opens its files again
    assert results(executor) == results(executor_on(("cpu",) * 3, tmp_path, "threads"))


def test_a_value_goes_from_one_process_to_another_where_it_lies(tmp_path: Path) -> None:
    """Outputs of a process lie in memory that it has made, and the next one gets that memory: no array is copied."""
    copied: list[tuple[int, ...]] = []
    pool = ArrayPool(memory=SharedBlock.make)

    def empty(shape: tuple[int, ...], dtype: Any, /) -> np.ndarray[Any, Any]:
        copied.append(shape)
        return pool.empty(shape, dtype)

    segments = segments_on(("cpu.0", "cpu.1", "cpu.2"), tmp_path)
    with workers_on(segments, tmp_path, empty=empty) as workers:
        batch = {"x": Value(NOISE[0])}
        for _ in range(2):
            run_micro_batches(segments, [batch, batch], workers, LONG)
    assert len(copied) == 1, "the graph's input, which both branches, both times, and two devices take"


def test_what_ranks_exchange_is_copied_once(tmp_path: Path) -> None:
    """Where it is joined: in memory that they share, if it is a page at least."""
    copied: list[tuple[int, ...]] = []
    pool = ArrayPool(memory=SharedBlock.make)

    def empty(shape: tuple[int, ...], dtype: Any, /) -> np.ndarray[Any, Any]:
        copied.append(shape)
        return pool.empty(shape, dtype)

    same = write(PLUS.format(given="x", taken="part"), tmp_path, "one", "onnxruntime")
    plus = write(PLUS.format(given="all", taken="y"), tmp_path, "two", "onnxruntime")
    gather = (RankExchange("all_gather", "part", "all"),)
    ranks = ("cpu.0", "cpu.1")
    files = (
        EngineFile(*KEY, 0, "onnxruntime", "cpu", None, "cpu.0", same, ("x",), ("part",), ranks=ranks),
        EngineFile(*KEY, 1, "onnxruntime", "cpu", None, "cpu.0", plus, ("all",), ("y",), ranks=ranks, exchanges=gather),
    )
    segments, x = Segments(files, ("x",), ("y",)), np.zeros((64, 64), np.float32)
    with workers_on(segments, tmp_path, empty=empty) as workers:
        (found,) = run_micro_batches(segments, [{"x": Value(x)}], workers, LONG, empty)
    assert found["y"].numpy().tolist() == np.full((128, 64), 2.0).tolist()
    assert copied == [(x.nbytes,), (128, 64)], "what is given, once for both ranks, and what they exchange"


def test_what_processes_do_is_in_the_trace(tmp_path: Path) -> None:
    """In a track for each device, by the clock of this process, for the request of whoever asked."""
    executor = executor_on(DEVICES, tmp_path, "processes")
    executor.open(*KEY)
    for loads in (3, 0):
        begun = clock()
        with recording() as recorder, for_request("7"):
            results(executor, NOISE[:2])
        ended, spans = clock(), recorder.spans
        tracks = {(span.track.name, span.phase): 0 for span in spans if span.track}
        for span in spans:
            assert span.track is not None and span.track.number in children()
            assert begun <= span.start <= span.end <= ended and (span.component, span.graph, span.request) == (
                *KEY,
                "7",
            )
            tracks[span.track.name, span.phase] += 1
        expected = {("cpu.0", "execute"): 4, ("cpu.1", "execute"): 2}
        assert tracks == (expected | {("cpu.0", "load"): 2, ("cpu.1", "load"): 1} if loads else expected)
        counted = {metric: value for (metric, _), value in recorder.values.items()}
        assert counted.get(LOADS, 0) == loads and counted[EXECUTIONS] == 2
    assert executor.counters()["denoiser/step"]["seconds"] > 0


def test_no_value_has_a_name_and_all_are_gone_at_the_end(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    executor = executor_on(DEVICES, tmp_path, "processes")
    results(executor)
    assert set(os.listdir("/dev/shm")) == before
    (kept,) = executor.run_together(*KEY, [{"x": NOISE[0]}])
    expected = kept["y"].numpy().copy()
    del executor
    gc.collect()
    assert np.array_equal(kept["y"].numpy(), expected), "what somebody has outlives the process that made it"
