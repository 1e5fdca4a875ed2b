"""What goes wrong in a device's process is told and mended, and nothing of it is left."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from wanc.runtime.checkpoint import checked_by
from wanc.runtime.engine_file import EngineFile
from wanc.runtime.errors import RequestCancelled, TargetError, UserError, render
from wanc.runtime.folder import PlainFolder
from wanc.runtime.pool import ArrayPool
from wanc.runtime.segments import Segments
from wanc.runtime.value import Value
from wanc.runtime.workers.execution import Execution
from wanc.runtime.workers.micro_batches import run_micro_batches
from wanc.runtime.workers.plan import DevicePlan
from wanc.runtime.workers.process_worker import ProcessWorker, Program
from wanc.runtime.workers.program import program
from wanc.runtime.workers.shared_memory import SharedBlock
from wanc.runtime.workers.thread_worker import ThreadWorker
from wanc.runtime.workers.worker import ROOM, DeviceWorker

from .devices import (
    DEVICES,
    FEW,
    LONG,
    PLUS,
    answer,
    batch,
    chain,
    children,
    device_processes,
    executor_on,
    nothing_is_left,
    one_more,
    pytestmark,
    results,
    workers_on,
)
from .test_executor import KEY, write

__all__ = ["nothing_is_left", "pytestmark"]


def child_of(name: str) -> psutil.Process:
    """The process of a device, which is in its arguments."""
    (found,) = [child for child in device_processes() if name in child.cmdline()]
    return found


def gone(process: psutil.Process) -> None:
    """Wait until it has ended; whoever started it is still to be told."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def started(segments: Segments, workers: Mapping[str, DeviceWorker]) -> psutil.Process:
    """The process of cpu.1, which has executed something."""
    assert answer(segments, workers) == 4
    return child_of("cpu.1")


Workers = Callable[..., dict[str, DeviceWorker]]


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Workers]:
    """Makes workers of the chain: a thread for cpu.0, so that all there is of processes is that of cpu.1."""
    made: list[ProcessWorker] = []

    def make(programs: Program = program, seconds: float = LONG) -> dict[str, DeviceWorker]:
        plan = DevicePlan.of("cpu.1", PlainFolder(tmp_path), chain(tmp_path).files, 1, frozenset())
        empty = ArrayPool(memory=SharedBlock.make).empty
        made.append(ProcessWorker(plan, empty, seconds, lambda *_: None, programs))
        return {"cpu.0": ThreadWorker("cpu.0", (), one_more), "cpu.1": made[-1]}

    yield make
    while made:  # with the memory that they have
        made.pop().close()


class Asked:
    """An execution of the second segment that a worker has begun."""

    def __init__(self, segments: Segments, worker: DeviceWorker, number: float = 1) -> None:
        self._ended = threading.Event()
        inputs = {"h": Value(np.full((2, 3), number, np.float32))}
        self.execution = Execution(segments.files[1], inputs, lambda _: self._ended.set())
        assert worker.offer(self.execution, LONG)
        while self.execution.started is None and not self._ended.is_set():
            os.sched_yield()

    def result(self) -> dict[str, Value]:
        assert self._ended.wait(LONG)
        return self.execution.result()


def test_killed_while_it_executes(tmp_path: Path, beside: Workers) -> None:
    segments, workers = chain(tmp_path), beside()
    process = started(segments, workers)
    process.suspend()
    asked = Asked(segments, workers["cpu.1"])
    process.kill()
    with pytest.raises(
        TargetError, match=r"^cpu\.1 ended while it executed segment 1 of denoiser/step: .* by SIGKILL$"
    ):
        asked.result()
    assert answer(segments, workers, 7) == 10


def test_killed_while_idle(tmp_path: Path, beside: Workers) -> None:
    """Another one is there when it is needed: nobody is told."""
    segments, workers = chain(tmp_path), beside()
    process = started(segments, workers)
    process.kill()
    gone(process)
    assert answer(segments, workers, 7) == 10


class Planted:
    """A worker's program that does something else before it listens, until `mended`."""

    def __init__(self, text: str) -> None:
        self.text, self.mended = text, False

    def __call__(self) -> tuple[str, tuple[int, ...]]:
        text, descriptors = program()
        return (text if self.mended else text.replace("main()", f"{self.text}\nmain()")), descriptors


@pytest.mark.parametrize(
    ("text", "how", "last_words"),
    [
        ("import os; os.kill(os.getpid(), 9)", "it was killed by SIGKILL", None),
        ("raise SystemExit('no numpy here')", "its exit code is 1", "no numpy here"),
    ],
)
def test_one_that_ends_while_it_starts(
    text: str, how: str, last_words: str | None, tmp_path: Path, beside: Workers
) -> None:
    planted = Planted(text)
    segments, workers = chain(tmp_path), beside(planted)
    with pytest.raises(TargetError) as caught:
        answer(segments, workers)
    assert caught.value.message == f"cpu.1 ended before it had started, for segment 1 of denoiser/step: {how}"
    assert ("caused by" in render(caught.value)) == bool(last_words) and (last_words or "") in render(caught.value)
    planted.mended = True
    assert answer(segments, workers, 7) == 10


def test_one_that_never_attaches(tmp_path: Path, beside: Workers) -> None:
    planted = Planted("import time; time.sleep(600)")
    segments, workers = chain(tmp_path), beside(planted, FEW)
    expected = r"^cpu\.1 has not started within 0\.5 s, for segment 1 of denoiser/step$"
    with pytest.raises(TargetError, match=expected) as caught:
        answer(segments, workers)
    assert "--worker-timeout" in str(caught.value.hint)
    planted.mended = True


def test_a_rank_that_never_attaches_is_named(tmp_path: Path) -> None:
    ranks = ("cpu.0", "cpu.1")
    (path,) = {write(PLUS.format(given="x", taken="y"), tmp_path, "rank", "onnxruntime")}
    file = EngineFile(*KEY, 0, "onnxruntime", "cpu", None, "cpu.0", path, ("x",), ("y",), ranks=ranks)
    planted = {"cpu.1": Planted("import time; time.sleep(600)")}
    segments = Segments((file,), ("x",), ("y",))
    with workers_on(segments, tmp_path, programs=planted) as workers, pytest.raises(TargetError) as caught:
        answer(segments, workers)
    expected = "cpu.1 has not started within 0.5 s, for segment 0 of denoiser/step, rank 1 of 2,"
    assert caught.value.message == expected


def test_one_that_hangs_is_killed(tmp_path: Path, beside: Workers) -> None:
    segments, workers = chain(tmp_path), beside()
    process = started(segments, workers)
    process.suspend()
    with pytest.raises(TargetError, match=r"^cpu\.1 has not given segment 1 of denoiser/step within 0\.5 s$"):
        answer(segments, workers, seconds=FEW)
    assert process.pid not in children()
    assert answer(segments, workers, 7) == 10


def test_a_full_queue_is_told(tmp_path: Path, beside: Workers) -> None:
    segments, workers = chain(tmp_path), beside()
    process = started(segments, workers)
    process.suspend()
    Asked(segments, workers["cpu.1"])
    for _ in range(ROOM):
        assert workers["cpu.1"].offer(Execution(segments.files[1], {}, lambda _: None), LONG)
    alone = Segments((replace(segments.files[1], segment=0),), ("h",), ("k",))
    with pytest.raises(TargetError, match=rf"cpu\.1 has not taken segment 0 .* its queue is full, {ROOM} executions"):
        run_micro_batches(alone, [{"h": batch(1)["x"]}], workers, FEW)


def test_a_cancelled_request_does_not_wait(tmp_path: Path, beside: Workers) -> None:
    segments, workers = chain(tmp_path), beside()
    process = started(segments, workers)
    process.suspend()

    def check() -> None:
        raise RequestCancelled("cancelled")

    with checked_by(check), pytest.raises(RequestCancelled):
        answer(segments, workers)
    process.resume()
    assert answer(segments, workers, 7) == 10 and child_of("cpu.1").pid == process.pid


def test_a_file_that_cannot_be_opened_is_told_as_in_one_process(tmp_path: Path) -> None:
    said: list[tuple[type[UserError], str]] = []
    for transport in ("threads", "processes"):
        executor = executor_on(DEVICES, tmp_path, transport)
        (tmp_path / "b.onnx").write_bytes(b"no model")
        with pytest.raises(UserError) as caught:
            results(executor)
        said.append((type(caught.value), render(caught.value)))
        assert str(tmp_path / "b.onnx") in said[-1][1] and "caused by" in said[-1][1]
        assert transport == "threads" or len(children()) == 2, "it goes on with other files"
    assert said[0] == said[1]


def test_no_descriptors_are_left(tmp_path: Path, beside: Workers) -> None:
    segments, workers = chain(tmp_path), beside()
    started(segments, workers)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # those below it are taken
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        with pytest.raises(TargetError, match="shared memory of 40,960 bytes: Too many open files") as caught:
            run_micro_batches(segments, [{"x": Value(np.zeros((100, 100), np.float32))}], workers, LONG)
        assert "ulimit -n" in str(caught.value.hint)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(lowest)
    assert answer(segments, workers, 7) == 10


# Answers that are none

LIAR = """
import os, socket
from wanc.runtime.workers import process_main
honest, said = process_main._Server._send, []
def send(self, message, blocks=()):
    wire, said_before = self._wire, message["kind"] in said
    said.append(message["kind"])
    if {when}:
        put = lambda data: wire._connection.send(data)
        {lie}
    honest(self, message, blocks)
process_main._Server._send = send
"""
OF_OUTPUT = 'message["outputs"][0]'
LIES = {
    "put(bytes(range(100)))": "not ",
    """put(b'{"kind":"done","outp')""": "not JSON",
    "message['kind'] = 'sorry'": "kind is 'sorry', not done",
    "self._digest = 'x' * 64": "plan is another one",
    f"{OF_OUTPUT}['name'] = 'z'": "outputs are z, not k",
    f"{OF_OUTPUT}['dtype'] = 'int32'": r"hold k as int32 \[2, 3\], which was float32 \[2, 3\] before",
    f"{OF_OUTPUT}['shape'] = [3, 2]": r"hold k as float32 \[3, 2\], which was float32 \[2, 3\] before",
    f"{OF_OUTPUT}['shape'] = [2 ** 40, 2 ** 40]": "of which a block of 4,096 bytes holds none",
    f"{OF_OUTPUT}['offset'] = 4096": "24 bytes at 4,096 do not lie in a block of 4,096",
    "message['kind'], message['error'] = 'failed', {'type': 'exit'}": "error.type is 'exit', not one of",
}
"""What a process does in place of, or before, its second answer, and what is said of that."""


def test_what_is_no_answer_is_told_and_another_process_takes_its_place(tmp_path: Path, beside: Workers) -> None:
    """Each of them answers well at first: so the request behind a fault works."""
    planted = Planted("")
    segments, workers = chain(tmp_path), beside(planted)
    for lie, reason in LIES.items():
        planted.text = LIAR.format(when='message["kind"] == "done" and said_before', lie=lie)
        assert answer(segments, workers) == 4
        with pytest.raises(TargetError) as caught:
            answer(segments, workers)
        start = "cpu.1 answered with what is no answer to segment 1 of denoiser/step: "
        assert caught.value.message.startswith(start), lie
        assert re.search(reason, caught.value.message.removeprefix(start)), (lie, caught.value.message)
    planted.mended = True
    assert answer(segments, workers, 7) == 10


@pytest.mark.parametrize(
    ("lie", "reason"),
    [("message['kind'] = 'done'", "kind is 'done', not hello"), ("put(b'hello')", "not JSON")],
)
def test_another_greeting_is_told(lie: str, reason: str, tmp_path: Path, beside: Workers) -> None:
    planted = Planted(LIAR.format(when='message["kind"] == "hello"', lie=lie))
    segments, workers = chain(tmp_path), beside(planted)
    with pytest.raises(TargetError, match=f"^cpu.1 answered with what is no answer to segment 1 .*: {reason}"):
        answer(segments, workers)
    planted.mended = True
    assert answer(segments, workers, 7) == 10


# The end


def run_python(text: str, folder: Path) -> subprocess.Popen[str]:
    """Another Python with an executor of this chain, which prints the numbers of its processes and then does this."""
    chain(folder)
    return subprocess.Popen(
        [sys.executable, "-c", PARENT.format(folder=str(folder), path=sys.path) + text],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


ROOT = Path(__file__).resolve().parents[2]
PARENT = """
import gc, os, signal, sys
from pathlib import Path
import psutil
from tests.runtime.devices import KEY, NOISE, PlainFolder, Executor, batch, chain
executor = Executor(PlainFolder(Path({folder!r})), {{KEY: chain(Path({folder!r}))}}, threads=1, transport="processes")
found, = executor.run_together(*KEY, [batch(1)])
print(*(child.pid for child in psutil.Process().children()), flush=True)
"""


@pytest.mark.parametrize(
    "text",
    [
        "", "raise SystemExit(3)", "os._exit(4)", "os.kill(os.getpid(), signal.SIGKILL)",
        "del executor\ngc.collect()\nassert not psutil.Process().children()",
    ],
    ids=["the end", "exit", "at once", "killed", "executor gone"],
)  # fmt: skip
def test_processes_end_with_the_one_that_started_them(text: str, tmp_path: Path) -> None:
    with run_python(text, tmp_path) as parent:
        out, err = parent.communicate()
    numbers = [int(number) for number in out.split()]
    assert len(numbers) == 2 and not err
    psutil.wait_procs([psutil.Process(number) for number in numbers if psutil.pid_exists(number)], timeout=LONG)
    assert not any(map(psutil.pid_exists, numbers))


def test_what_is_sent_to_a_terminals_processes_is_for_the_parent_alone(tmp_path: Path, beside: Workers) -> None:
    segments, workers = chain(tmp_path), beside()
    process = started(segments, workers)
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    process.send_signal(signal.SIGINT)
    assert answer(segments, workers, 7) == 10 and child_of("cpu.1").pid == process.pid
