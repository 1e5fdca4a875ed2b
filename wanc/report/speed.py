"""How fast bundles are: each in a process of its own, all in turn, so that a slow moment of the machine meets them all.

Whole videos tell the phases. Steps are timed in pairs, one of each bundle at the same state, whose ratio says to a few
parts in a thousand whether one is slower.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from wanc.errors import UserError
from wanc.report.chunks import part, spans
from wanc.report.document import Cohort, MemoryPoint, Ratio, Speed, Times
from wanc.report.reference import ReferenceRecord
from wanc.report.statistics import median_with_bounds
from wanc.report.timed import State, serve
from wanc.report.timed_clip import Sample
from wanc.runtime.cores import available_cores

ROUNDS = 3
"""Of whole videos."""
TOOLS = ("numpy", "onnxruntime", "openvino", "tokenizers", "av")


@dataclass
class Told:
    """What the processes of one bundle have said."""

    phases: dict[str, list[float]]
    memory: list[Sample]
    steps: list[float]
    peak: int = 0
    frames: int = 0
    session: int | None = None


def timed(
    bundles: Mapping[str, Path],
    record: ReferenceRecord,
    pairs: int,
    threads: int | None,
    advance: Callable[[], object] = lambda: None,
) -> tuple[dict[str, Speed], dict[str, list[Ratio]]]:
    """The speed of each bundle by name, and what its steps take beside those of the last one, which is the baseline.

    `advance` is told of every video, and of every round of steps. Raises UserError where a bundle fails.
    """
    told = {name: Told({}, [], []) for name in bundles}
    clip = record.clips[0]
    for _ in range(ROUNDS):
        with _opened(bundles, threads) as workers:
            for name, worker in workers.items():
                told[name].phases.setdefault("open", []).append(worker.open_seconds)
                found = worker.ask("clip", clip.prompt, clip.seed, clip.latents[0])
                for phase, seconds in found.phases.items():
                    told[name].phases.setdefault(phase, []).append(seconds)
                told[name].memory, told[name].frames = found.memory, found.frames
                told[name].peak = max(told[name].peak, worker.ask("peak"))
                advance()
    with _opened(bundles, threads) as workers:
        states = [_state(record, step) for step in record.tapped]
        for worker in workers.values():
            for state in states:
                worker.ask("step", state)  # opens engines, and what a request computes once
        for name, worker in workers.items():
            told[name].session = worker.ask("session_bytes")
        for pair in range(pairs):
            # By turns each of them comes first: whoever follows another finds other things in the caches.
            names = list(workers) if pair % 2 else list(reversed(workers))
            state = states[pair * len(states) // pairs]
            for name in names:
                told[name].steps.append(workers[name].ask("step", state))
            advance()
    *others, baseline = bundles
    ratios = {name: [_ratio(told[name].steps, told[baseline].steps)] for name in others}
    return {name: _speed(one) for name, one in told.items()}, {**ratios, baseline: []}


def machine(threads: int | None) -> Cohort:
    """What times depend on."""
    features = sorted({"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"} & _flags())
    return Cohort(
        processor=_processor(),
        cores=available_cores(),
        features=features,
        tools={name: found for name in TOOLS if (found := _version(name))},
        threads=threads or 0,
    )


class Worker:
    """A bundle's process, seen from here."""

    def __init__(self, name: str, path: Path, threads: int | None) -> None:
        self._name = name
        context = multiprocessing.get_context("spawn")
        self._connection: Connection
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, path, threads), daemon=True)
        self._process.start()
        theirs.close()
        self.open_seconds: float = self._answer()

    def ask(self, method: str, *arguments: Any) -> Any:
        """What a method of `TimedBundle` gives. Raises UserError where it fails, or the process ends."""
        self._connection.send((method, arguments))
        return self._answer()

    def close(self) -> None:
        self._connection.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise UserError(f"{self._name}: its process ended with {self._process.exitcode}") from None
        if isinstance(answer, Exception):
            raise UserError(f"{self._name} cannot be timed") from answer
        return answer


@contextmanager
def _opened(bundles: Mapping[str, Path], threads: int | None) -> Generator[dict[str, Worker]]:
    workers: dict[str, Worker] = {}
    try:
        for name, path in bundles.items():
            workers[name] = Worker(name, path, threads)
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def _state(record: ReferenceRecord, step: int) -> State:
    """Of a causal model in the last chunk, behind the clean ones of the reference."""
    clip = record.clips[0]
    *before, last = spans(record.cache, clip.latents.shape[3])
    past = [part(clip.latents[-1], span) for span in before]
    return State(part(clip.latents[step], last), record.timesteps[step], *clip.texts, past)


def _ratio(steps: Sequence[float], before: Sequence[float]) -> Ratio:
    ratios = [mine / theirs for mine, theirs in zip(steps, before, strict=True)]
    median, low, high = median_with_bounds(ratios)
    return Ratio(phase="step", ratio=median, low=low, high=high, pairs=len(ratios))


def _speed(told: Told) -> Speed:
    phases = {name: _times(seconds) for name, seconds in told.phases.items()}
    phases["step"] = _times(told.steps)
    return Speed(
        phases=phases,
        videos_per_hour=3600 / phases["total"].median,
        frames_per_second=told.frames / phases["total"].median,
        denoised_frames_per_second=told.frames / phases["denoise"].median if "denoise" in phases else None,
        session_bytes=told.session,
        peak_rss_bytes=told.peak,
        memory=[MemoryPoint(seconds=seconds, rss_bytes=size, phase=phase) for seconds, size, phase in told.memory],
    )


def _times(seconds: Sequence[float]) -> Times:
    low, median, high = np.percentile(seconds, [10, 50, 90]).tolist()
    return Times(seconds=list(seconds), median=median, low=low, high=high)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    return next(iter(_lines("model name")), "") or platform.processor() or platform.machine()


def _flags() -> set[str]:
    return {flag for line in _lines("flags") for flag in line.split()}


def _lines(key: str) -> list[str]:
    if not os.path.exists("/proc/cpuinfo"):
        return []
    lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    return [line.partition(":")[2].strip() for line in lines if line.startswith(key)]
