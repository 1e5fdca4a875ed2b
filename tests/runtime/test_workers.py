"""Segments on several devices of one process: micro-batches go through them, and what goes wrong is told."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.runtime.checkpoint import checked_by
from wanc.runtime.engine_file import RANK, EngineFile, RankExchange
from wanc.runtime.errors import RequestCancelled, TargetError
from wanc.runtime.executor import Executor
from wanc.runtime.folder import PlainFolder
from wanc.runtime.segments import Segments
from wanc.runtime.value import Value
from wanc.runtime.workers.create import cores_of
from wanc.runtime.workers.execution import Execution
from wanc.runtime.workers.micro_batches import run_micro_batches
from wanc.runtime.workers.thread_worker import ThreadWorker
from wanc.runtime.workers.worker import ROOM

from .test_executor import HEAD, KEY, MIDDLE, TAIL, write

Compute = Callable[[EngineFile, Mapping[str, Value]], dict[str, Value]]
FEW = 0.5
"""Seconds that a device has where it never answers."""


def file_on(device: str, segment: int = 0, inputs: str = "x", outputs: str = "y", **fields: Any) -> EngineFile:
    names = (tuple(inputs.split()), tuple(outputs.split()))
    return EngineFile(*KEY, segment, "onnxruntime", "cpu", None, device, f"s{segment}", *names, **fields)


def workers_of(*devices: str, compute: Compute) -> dict[str, ThreadWorker]:
    return {device: ThreadWorker(device, (), compute) for device in devices}


CHAIN = Segments(
    (file_on("cpu.0", 0, "x", "h"), file_on("cpu.1", 1, "h", "k"), file_on("cpu.0", 2, "k", "y")), ("x",), ("y",)
)
"""Through two devices and back to the first: with queues between workers, two of them could wait for each other."""


def one_more(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
    (value,) = inputs.values()
    return {file.outputs[0]: Value(value.numpy() + 1)}


def batch(number: float) -> dict[str, Value]:
    return {"x": Value(np.full((2, 3), number, np.float32))}


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What hangs does so until this is set, which it is at the end."""
    event = threading.Event()
    yield event
    event.set()


def test_segments_on_two_devices_give_what_one_gives(tmp_path: Path) -> None:
    texts = {"a": (HEAD, "x", "h far"), "b": (MIDDLE, "h", "k"), "c": (TAIL, "k far x", "y")}
    found: dict[tuple[str, ...], list[bytes]] = {}
    for devices in (("cpu.0", "cpu.0", "cpu.0"), ("cpu.0", "cpu.1", "cpu.0"), ("cpu.2", "cpu.1", "cpu.0")):
        files = [
            EngineFile(*KEY, index, "onnxruntime", "cpu", None, device, write(model, tmp_path, name, "onnxruntime"),
                       tuple(inputs.split()), tuple(outputs.split()))
            for index, (device, (name, (model, inputs, outputs))) in enumerate(zip(devices, texts.items(), strict=True))
        ]  # fmt: skip
        executor = Executor(PlainFolder(tmp_path), {KEY: Segments(tuple(files), ("x",), ("y",))}, threads=1)
        noise = np.random.default_rng(0).standard_normal((4, 5, 4)).astype(np.float32)
        results = executor.run_together(*KEY, [{"x": array} for array in noise])
        found[devices] = [result["y"].numpy().tobytes() for result in results]
        assert executor.counters()["denoiser/step"]["executions"] == 4
        assert (executor.devices("step"), executor.devices("decode")) == (len(set(devices)), 1)
    assert len({tuple(outputs) for outputs in found.values()}) == 1


def test_each_device_has_a_thread_of_its_own() -> None:
    threads: dict[int, set[str]] = {}

    def compute(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        threads.setdefault(file.segment, set()).add(threading.current_thread().name)
        return one_more(file, inputs)

    found = run_micro_batches(CHAIN, [batch(1), batch(5)], workers_of("cpu.0", "cpu.1", compute=compute), 30)
    assert [float(outputs["y"].numpy()[0, 0]) for outputs in found] == [4, 8]
    assert threads == {0: {"cpu.0"}, 1: {"cpu.1"}, 2: {"cpu.0"}}


def test_devices_work_at_once() -> None:
    """The first execution of either device ends when the other's has begun."""
    meeting = threading.Barrier(2, timeout=30)
    segments = Segments((file_on("cpu.0", 0, "x", "h"), file_on("cpu.1", 1, "h", "y")), ("x",), ("y",))
    met: list[int] = []

    def compute(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        number = int(next(iter(inputs.values())).numpy()[0, 0])
        if (file.segment, number) in ((0, 10), (1, 2)):  # the second micro-batch is in front while the first is behind
            meeting.wait()
            met.append(file.segment)
        return one_more(file, inputs)

    run_micro_batches(segments, [batch(1), batch(10)], workers_of("cpu.0", "cpu.1", compute=compute), 30)
    assert sorted(met) == [0, 1]


@settings(max_examples=25, deadline=None)
@given(
    devices=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    batches=st.lists(st.integers(1, 3), min_size=1, max_size=6),
)
def test_no_placement_waits_for_itself(devices: list[int], batches: list[int]) -> None:
    """However segments lie on devices and however many callers there are, all come to an end with the right numbers."""
    files = [file_on(f"cpu.{device}", index, f"v{index}", f"v{index + 1}") for index, device in enumerate(devices)]
    segments = Segments(tuple(files), ("v0",), (f"v{len(files)}",))
    workers = workers_of(*{file.device for file in files}, compute=one_more)

    def call(count: int) -> list[float]:
        inputs = [{"v0": Value(np.full((1,), number, np.float32))} for number in range(count)]
        found = run_micro_batches(segments, inputs, workers, 60)
        return [float(outputs[segments.outputs[0]].numpy()[0]) for outputs in found]

    with ThreadPoolExecutor(len(batches)) as callers:
        results = list(callers.map(call, batches))
    assert results == [[number + len(files) for number in range(count)] for count in batches]


def test_what_no_later_segment_takes_is_let_go() -> None:
    """The values of the first segment are gone when the third is executed."""
    alive: list[weakref.ref[Any]] = []

    def compute(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        outputs = one_more(file, inputs)
        if file.segment == 0:
            alive.append(weakref.ref(outputs["h"].numpy()))
        if file.segment == 2:
            gc.collect()
            assert [entry() for entry in alive] == [None]
        return outputs

    run_micro_batches(CHAIN, [batch(1)], workers_of("cpu.0", "cpu.1", compute=compute), 30)


# Faults


def test_a_device_that_hangs_is_named_and_the_next_request_works(released: threading.Event) -> None:
    hangs = [True]

    def compute(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        if file.segment == 1 and hangs:
            hangs.clear()
            released.wait(60)
        return one_more(file, inputs)

    workers = workers_of("cpu.0", "cpu.1", compute=compute)
    with pytest.raises(TargetError, match=r"^cpu\.1 has not given segment 1 of denoiser/step within 0\.5 s$") as caught:
        run_micro_batches(CHAIN, [batch(1)], workers, FEW)
    assert "--worker-timeout" in str(caught.value.hint)
    (found,) = run_micro_batches(CHAIN, [batch(1)], workers, 30)
    assert float(found["y"].numpy()[0, 0]) == 4


def test_who_waits_behind_one_that_hangs_is_told_what_hangs(released: threading.Event) -> None:
    began = threading.Event()

    def compute(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        began.set()
        released.wait(60)
        return one_more(file, inputs)

    workers = workers_of("cpu.0", "cpu.1", compute=compute)
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(run_micro_batches, CHAIN, [batch(1)], workers, FEW)
        began.wait(30)
        second = callers.submit(run_micro_batches, CHAIN, [batch(2)], workers, 60)
        for waiting in (first, second):
            with pytest.raises(TargetError, match=r"cpu\.0 has not given segment 0 of denoiser/step"):
                waiting.result(30)


def test_a_full_queue_is_told(released: threading.Event) -> None:
    def compute(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        released.wait(60)
        return one_more(file, inputs)

    worker = ThreadWorker("cpu.0", (), compute)
    for _ in range(ROOM + 1):  # one of them is under way
        assert worker.offer(Execution(CHAIN.files[0], {}, lambda _: None), 30)
    alone = Segments((file_on("cpu.0"),), ("x",), ("y",))
    with pytest.raises(TargetError, match=rf"cpu\.0 has not taken segment 0 .* its queue is full, {ROOM} executions"):
        run_micro_batches(alone, [batch(1)], {"cpu.0": worker}, FEW)


def test_a_cancelled_request_does_not_wait(released: threading.Event) -> None:
    """It ends while the device is still at work, and what it has in the queue is never begun."""
    began, segments_begun = threading.Event(), list[int]()

    def compute(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        segments_begun.append(int(next(iter(inputs.values())).numpy()[0, 0]))
        began.set()
        if segments_begun == [1]:
            released.wait(60)
        return one_more(file, inputs)

    def check() -> None:
        if began.is_set():
            raise RequestCancelled("cancelled")

    workers = workers_of("cpu.0", "cpu.1", compute=compute)
    with checked_by(check), pytest.raises(RequestCancelled):
        run_micro_batches(CHAIN, [batch(1), batch(2)], workers, 60)
    released.set()
    (found,) = run_micro_batches(CHAIN, [batch(7)], workers, 30)
    assert float(found["y"].numpy()[0, 0]) == 10
    assert 2 not in segments_begun


def test_what_fails_on_a_device_is_raised_and_the_other_batches_end() -> None:
    def compute(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        if file.segment == 1:
            raise TargetError("onnxruntime cannot execute this graph on these inputs", where="s1")
        return one_more(file, inputs)

    with pytest.raises(TargetError, match=r"^s1: onnxruntime cannot execute"):
        run_micro_batches(CHAIN, [batch(1), batch(2)], workers_of("cpu.0", "cpu.1", compute=compute), 30)


def test_a_closed_worker_takes_nothing(tmp_path: Path) -> None:
    worker = ThreadWorker("cpu.0", (), one_more)
    worker.close()
    with pytest.raises(TargetError, match=r"cpu\.0 takes no more work"):
        worker.offer(Execution(CHAIN.files[0], {}, lambda _: None), 1)


def test_workers_go_with_their_executor(tmp_path: Path) -> None:
    files = (file_on("cpu.0", 0, "x", "h"), file_on("cpu.1", 1, "h", "y"))
    executor, before = Executor(PlainFolder(tmp_path), {KEY: Segments(files, ("x",), ("y",))}, threads=1), threads()
    with pytest.raises(TargetError):
        executor.run(*KEY, {"x": np.zeros((1, 4), np.float32)})  # there are no such files
    (own,) = threads() - before
    weak = weakref.ref(executor)
    del executor
    gc.collect()
    assert weak() is None
    own.join(30)
    assert not own.is_alive()


def threads() -> set[threading.Thread]:
    """Those of workers."""
    return {thread for thread in threading.enumerate() if thread.name in ("cpu.0", "cpu.1")}


# Ranks

RANKED = Segments(
    (
        file_on("cpu.0", 0, "x rank", "part", ranks=("cpu.0", "cpu.1")),
        file_on(
            "cpu.0", 1, "all", "y", ranks=("cpu.0", "cpu.1"), exchanges=(RankExchange("all_gather", "part", "all"),)
        ),
    ),
    ("x",),
    ("y",),
)


def ranked(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
    """The first segment takes a rank's rows and doubles them, the second adds nothing."""
    if file.segment:
        return {"y": inputs["all"]}
    rank, x = int(inputs[RANK].numpy()[0]), inputs["x"].numpy()
    return {"part": Value(2 * x[rank : rank + 1])}


def test_ranks_exchange_what_they_have() -> None:
    (found,) = run_micro_batches(
        RANKED, [{"x": Value(np.array([[1], [2]], np.float32))}], workers_of("cpu.0", "cpu.1", compute=ranked), 30
    )
    assert found["y"].numpy().tolist() == [[2], [4]]


def test_uneven_shards_are_an_error_and_nobody_waits() -> None:
    def uneven(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        rank = int(inputs[RANK].numpy()[0])
        return {"part": Value(np.zeros((1, 2 + rank), np.float32))}

    with pytest.raises(
        TargetError, match=r"part cannot be exchanged by 2 ranks, which have float32 \[1, 2\], float32 \[1, 3\]"
    ):
        run_micro_batches(RANKED, [batch(1)], workers_of("cpu.0", "cpu.1", compute=uneven), 30)


def test_a_rank_that_hangs_is_named(released: threading.Event) -> None:
    def compute(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
        if int(inputs[RANK].numpy()[0]) == 1:
            released.wait(60)
        return ranked(file, inputs)

    with pytest.raises(TargetError, match=r"^cpu\.1 has not given segment 0 of denoiser/step, rank 1 of 2, within"):
        run_micro_batches(RANKED, [batch(1)], workers_of("cpu.0", "cpu.1", compute=compute), FEW)


def test_devices_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wanc.runtime.workers.create.all_cores", lambda: frozenset(range(5)))
    assert cores_of(("a", "b")) == {"a": {0, 1}, "b": {2, 3}}
    assert cores_of(tuple("abcdefg"))["f"] == {0}, "more devices than processors"
