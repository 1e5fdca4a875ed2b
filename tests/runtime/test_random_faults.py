"""Random faults in processes of devices: each request ends in words or with the right numbers, and the next works."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from wanc.runtime.checkpoint import checked_by
from wanc.runtime.engine_file import EngineFile, Key, RankExchange
from wanc.runtime.errors import RequestCancelled, UserError, render
from wanc.runtime.folder import PlainFolder
from wanc.runtime.segments import Segments
from wanc.runtime.value import Value
from wanc.runtime.workers.create import process_workers, shared_pool
from wanc.runtime.workers.micro_batches import run_micro_batches
from wanc.runtime.workers.plan import DevicePlan

from .devices import PLUS, device_processes, nothing_is_left, pytestmark
from .test_executor import write

__all__ = ["nothing_is_left", "pytestmark"]
PLAIN: Key = ("denoiser", "plain")
RANKED: Key = ("denoiser", "ranked")
DEVICES = ("cpu.0", "cpu.1")
FEW = 1.0
"""Seconds that a device has for a segment while there are faults."""
STARTS = 15.0
"""Seconds in which a process starts, however busy the machine is, unless it was stopped."""
HANGS = 90.0
RIGHT = "right"
REQUESTS = 4
"""At once."""
ROWS = """<ir_version: 11, opset_import: ["" : 23]>
g (float[n, m] x, int64[1] rank) => (float[one, m] part) {
    row = Gather <axis = 0> (x, rank)
    part = Add (row, row)
}"""
KINDS = ("kill", "kill both", "stop", "cancel")


class Pipelined:
    """Two graphs on two devices: y = x + 3 in three segments; and y = 2x, of which each rank computes a row."""

    def __init__(self, folder: Path) -> None:
        plain = [
            EngineFile(*PLAIN, index, "onnxruntime", "cpu", None, device,
                       write(PLUS.format(given=given, taken=taken), folder, f"p{index}", "onnxruntime"),
                       (given,), (taken,))
            for index, (device, given, taken) in enumerate(zip(("cpu.0", "cpu.1", "cpu.0"), "xhk", "hky", strict=True))
        ]  # fmt: skip
        same = PLUS.format(given="all", taken="y").replace("1.0", "0.0")
        ranked = [
            EngineFile(*RANKED, 0, "onnxruntime", "cpu", None, "cpu.0", write(ROWS, folder, "rows", "onnxruntime"),
                       ("x", "rank"), ("part",), ranks=DEVICES),
            EngineFile(*RANKED, 1, "onnxruntime", "cpu", None, "cpu.0", write(same, folder, "same", "onnxruntime"),
                       ("all",), ("y",), ranks=DEVICES, exchanges=(RankExchange("all_gather", "part", "all"),)),
        ]  # fmt: skip
        self._graphs = {
            key: Segments(tuple(files), ("x",), ("y",)) for key, files in ((PLAIN, plain), (RANKED, ranked))
        }
        files = [*plain, *ranked]
        plans = [DevicePlan.of(device, PlainFolder(folder), files, 1, frozenset()) for device in DEVICES]
        self._empty = shared_pool().empty
        self.workers = process_workers(plans, self._empty, STARTS, lambda *_: None)

    def request(self, key: Key, number: int, seconds: float, cancelled: threading.Event) -> str:
        """A request of two branches: `right`, or the error in words. Raises AssertionError for wrong numbers."""

        def check() -> None:
            if cancelled.is_set():
                raise RequestCancelled("cancelled")

        given = [np.full((2, 64), number + branch, np.float32) for branch in range(2)]
        try:
            with checked_by(check):
                inputs = [{"x": Value(array)} for array in given]
                found = run_micro_batches(self._graphs[key], inputs, self.workers, seconds, self._empty)
        except UserError as error:
            return render(error)
        for array, outputs in zip(given, found, strict=True):
            expected = array + 3 if key == PLAIN else 2 * array
            assert np.array_equal(outputs["y"].numpy(), expected)
        return RIGHT


class Fault:
    """What happens to the process of a device, some milliseconds after requests have begun."""

    def __init__(self, chance: random.Random) -> None:
        self.kind, self.device = chance.choice(KINDS), chance.choice(DEVICES)
        self.after = chance.random() * chance.choice((0.003, 0.03, 0.3))
        self.keys = chance.choices((PLAIN, RANKED), k=REQUESTS)

    def happens(self, cancelled: threading.Event) -> list[psutil.Process]:
        """Let it happen; returns whom it has happened to."""
        if self.kind == "cancel":
            cancelled.set()
            return []
        hit: list[psutil.Process] = []
        for child in device_processes():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if self.kind == "kill both" or self.device in child.cmdline():
                    (child.suspend if self.kind == "stop" else child.kill)()
                    hit.append(child)
        return hit

    def __str__(self) -> str:
        return f"{self.kind} {self.device} after {self.after:.4f} s, of {[key[1] for key in self.keys]}"


def settled(fault: Fault, hit: list[psutil.Process]) -> None:
    """What was killed has ended by now, and what was stopped and not replaced goes on."""
    for process in hit:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, ChildProcessError):
            if fault.kind == "stop":
                process.resume()
            else:
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def faults(count: int, seed: int, folder: Path) -> Counter[str]:
    """So many random faults, each while four requests are under way; how often each kind of ending came."""
    chance, pipelined, never = random.Random(seed), Pipelined(folder), threading.Event()
    endings: Counter[str] = Counter()
    with ThreadPoolExecutor(REQUESTS) as callers:
        for number in range(count):
            fault, cancelled = Fault(chance), threading.Event()
            asked = [callers.submit(pipelined.request, key, number, FEW, cancelled) for key in fault.keys]
            never.wait(fault.after)
            hit = fault.happens(cancelled)
            found = [request.result(HANGS) for request in asked]
            settled(fault, hit)
            for ending in found:
                assert ending == RIGHT or ending.startswith("error: "), (str(fault), ending)
                endings[ending.partition("\n")[0] if ending == RIGHT else "error"] += 1
            for key in (PLAIN, RANKED):
                assert pipelined.request(key, number, HANGS, never) == RIGHT, str(fault)
    for worker in pipelined.workers.values():
        worker.close()
    return endings


def test_a_few_random_faults(tmp_path: Path) -> None:
    endings = faults(10, 1, tmp_path)
    assert endings["error"] and endings[RIGHT], "or there was no fault in time, or nothing but faults"


@pytest.mark.slow
@pytest.mark.long
def test_many_random_faults(tmp_path: Path) -> None:
    endings = faults(200, 2, tmp_path)
    assert endings["error"] > 50 and endings[RIGHT] > 50
