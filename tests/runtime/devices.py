"""Devices as processes of their own, and graphs that they execute together."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from wanc.runtime.engine_file import EngineFile, Key
from wanc.runtime.executor import Executor
from wanc.runtime.folder import PlainFolder
from wanc.runtime.pool import ArrayPool
from wanc.runtime.segments import Segments
from wanc.runtime.value import Value
from wanc.runtime.workers.micro_batches import run_micro_batches
from wanc.runtime.workers.plan import DevicePlan
from wanc.runtime.workers.process_worker import ProcessWorker, Program
from wanc.runtime.workers.program import program
from wanc.runtime.workers.shared_memory import SharedBlock
from wanc.runtime.workers.worker import DeviceWorker

from .test_executor import HEAD, KEY, MIDDLE, TAIL, write
from .test_wire import descriptors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory as Linux has it")
LONG = 60.0
"""Seconds in which a process starts and executes, however busy the machine is."""
FEW = 0.5
"""Seconds that one has which never does."""
DEVICES = ("cpu.0", "cpu.1", "cpu.0")
TEXTS = {"a": (HEAD, "x", "h far"), "b": (MIDDLE, "h", "k"), "c": (TAIL, "k far x", "y")}
NOISE = np.random.default_rng(0).standard_normal((4, 50, 4)).astype(np.float32)


def segments_on(devices: tuple[str, ...], folder: Path) -> Segments:
    files = [
        EngineFile(*KEY, index, "onnxruntime", "cpu", None, device, write(model, folder, name, "onnxruntime"),
                   tuple(inputs.split()), tuple(outputs.split()))
        for index, (device, (name, (model, inputs, outputs))) in enumerate(zip(devices, TEXTS.items(), strict=True))
    ]  # fmt: skip
    return Segments(tuple(files), ("x",), ("y",))


def executor_on(devices: tuple[str, ...], folder: Path, transport: str) -> Executor:
    engines: dict[Key, Segments] = {KEY: segments_on(devices, folder)}
    return Executor(PlainFolder(folder), engines, threads=1, transport=transport)


def results(executor: Executor, inputs: np.ndarray[Any, Any] = NOISE) -> list[bytes]:
    return [found["y"].numpy().tobytes() for found in executor.run_together(*KEY, [{"x": array} for array in inputs])]


def device_processes() -> list[psutil.Process]:
    """Those of devices: this process may have others, that stages and what is multiprocessing's run in."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if child.cmdline()[1:4] == ["-I", "-B", "-"]:
                found.append(child)
    return found


def children() -> list[int]:
    return [child.pid for child in device_processes()]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Whatever a test does to a process: behind it there is none, and no descriptor of one."""
    gc.collect()
    before = (children(), descriptors())
    yield
    end = time.monotonic() + LONG
    while (children(), descriptors()) != before and time.monotonic() < end:
        gc.collect()  # a worker's thread may hold an error, and so its frames, a moment longer than who was told
    assert (children(), descriptors()) == before


class workers_on:  # noqa: N801 - a context manager
    """A process for each device of these segments; `programs` are those of a device that has another one."""

    def __init__(
        self,
        segments: Segments,
        folder: Path,
        *,
        empty: Any = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        devices = sorted({device for file in segments.files for device in (file.ranks or (file.device,))})
        own = empty or ArrayPool(memory=SharedBlock.make).empty
        self.workers: dict[str, DeviceWorker] = {
            device: ProcessWorker(
                DevicePlan.of(device, PlainFolder(folder), segments.files, 1, frozenset()),
                own, FEW if programs and device in programs else LONG, lambda *_: None,
                (programs or {}).get(device, program),
            )
            for device in devices
        }  # fmt: skip

    def __enter__(self) -> dict[str, DeviceWorker]:
        return self.workers

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()


def one_more(file: EngineFile, inputs: Mapping[str, Value]) -> dict[str, Value]:
    (value,) = inputs.values()
    return {file.outputs[0]: Value(value.numpy() + 1)}


PLUS = """<ir_version: 11, opset_import: ["" : 23]>
g (float[n, m] {given}) => (float[n, m] {taken}) {{ c = Constant <value_float = 1.0> () {taken} = Add ({given}, c) }}"""


def chain(folder: Path) -> Segments:
    """y = x + 3, through two devices and back to the first."""
    files = [
        EngineFile(*KEY, index, "onnxruntime", "cpu", None, device,
                   write(PLUS.format(given=given, taken=taken), folder, f"p{index}", "onnxruntime"), (given,), (taken,))
        for index, (device, given, taken) in enumerate(zip(DEVICES, "xhk", "hky", strict=True))
    ]  # fmt: skip
    return Segments(tuple(files), ("x",), ("y",))


def batch(number: float) -> dict[str, Value]:
    return {"x": Value(np.full((2, 3), number, np.float32))}


def answer(segments: Segments, workers: Mapping[str, DeviceWorker], number: float = 1, seconds: float = LONG) -> float:
    (found,) = run_micro_batches(segments, [batch(number)], workers, seconds)
    return float(found["y"].numpy()[0, 0])
