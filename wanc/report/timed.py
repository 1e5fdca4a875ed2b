"""A bundle in a process of its own, which does as it is told and says how long it took."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from wanc.runtime.memory import peak_rss_bytes, rss_bytes
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.timer import Timer

Array = np.ndarray[Any, Any]
Sample = tuple[float, int, str]
"""Of memory: seconds since the clip was begun, bytes, and the phase."""
EVERY_SECONDS = 0.02


@dataclass(frozen=True)
class State:
    """Where one step is made: latents, timestep, and text states of both branches."""

    latents: Array
    timestep: float
    text: Array
    negative: Array


@dataclass
class MemoryWatch:
    """Looks at the memory of this process now and then, in a thread of its own, for the length of a `with`."""

    phase: str = ""
    samples: list[Sample] = field(default_factory=list[Sample])

    def __enter__(self) -> MemoryWatch:
        self._end, self._started = threading.Event(), time.perf_counter()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(EVERY_SECONDS):
            self.samples.append((time.perf_counter() - self._started, rss_bytes(), self.phase))


class TimedBundle:
    """One that is open; `open_seconds` is what that took, verifying included."""

    def __init__(self, path: Path, threads: int | None) -> None:
        started = time.perf_counter()
        self._pipeline = Pipeline.open(path, threads=threads)
        self.open_seconds = time.perf_counter() - started

    def clip(self, prompt: str, noise: Array) -> tuple[dict[str, float], list[Sample]]:
        """Make a video file, as `wanc run` does: seconds by phase, and the memory on the way."""
        from wanc.runtime.video import create_video

        pipeline, timer = self._pipeline, Timer()
        shape = next(one for one in pipeline.bundle.shapes if pipeline.bundle.latent_shape(one) == noise.shape)
        request = Request(prompt, latents=noise, shape=shape.name)
        steps: list[float] = []
        with MemoryWatch("text") as watch, TemporaryDirectory() as folder:
            started = time.perf_counter()
            texts = pipeline.encode(request, timer)
            watch.phase = "denoise"
            steps.append(time.perf_counter())
            start = pipeline.start(request)
            latents = pipeline.sample(start, texts, timer, on_latents=lambda _: steps.append(time.perf_counter()))
            watch.phase = "decode"
            chunks = pipeline.decode(latents, timer)
            first = next(chunks)
            first_frame = time.perf_counter()
            frames = np.concatenate([first.copy(), *(chunk.copy() for chunk in chunks)])
            watch.phase = "encode"
            encoding = time.perf_counter()
            height, width = frames.shape[1:3]
            fps = pipeline.bundle.sampling.fps
            with create_video(Path(folder) / "video.mp4", height=height, width=width, fps=fps) as video:
                video.write(frames)
            ended = time.perf_counter()
        phases = {
            "text": timer.seconds["text"],
            **_of_steps(steps, [pipeline.expert_at(at).component for at in start[0].timesteps.tolist()]),
            "decode": timer.seconds["decode"],
            "encode": ended - encoding,
            "first_frame": first_frame - started,
            "total": ended - started,
        }
        return phases, watch.samples

    def step(self, state: State) -> float:
        """Seconds of one step, all branches."""
        expert = self._pipeline.expert_at(state.timestep)
        if not hasattr(self, "_parts") or self._parts.component != expert.component:
            self._parts = self._pipeline.parts(expert.component)
        started = time.perf_counter()
        expert.velocity(self._parts, state.latents, state.timestep, state.text, state.negative)
        return time.perf_counter() - started

    def peak(self) -> int:
        """The most memory that this process ever had, in bytes."""
        return peak_rss_bytes()


def _of_steps(times: Sequence[float], experts: Sequence[str]) -> dict[str, float]:
    """The first step, a step of each expert behind its own first, and what the change from one to the other costs."""
    seconds = np.diff(times)
    found = {"first_step": float(seconds[0])}
    ordinary: dict[str, float] = {}
    for expert in dict.fromkeys(experts):
        steps = [step for step in range(1, len(experts)) if experts[step - 1] == experts[step] == expert]
        own = [seconds[step] for step in steps]
        if own:
            ordinary[expert] = found[f"step {expert}"] = float(np.median(own))
    changes = [step for step in range(1, len(experts)) if experts[step] != experts[step - 1]]
    if changes and experts[changes[0]] in ordinary:
        found["switch"] = max(0.0, float(seconds[changes[0]]) - ordinary[experts[changes[0]]])
    return found


def serve(connection: Connection, path: Path, threads: int | None) -> None:
    """Answer orders, (method, arguments), with what they give, or with the error; until the other side is gone."""
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        try:
            bundle = TimedBundle(path, threads)
            connection.send(bundle.open_seconds)
        except Exception as error:
            connection.send(error)
            return
        while True:
            method, arguments = connection.recv()
            try:
                connection.send(getattr(bundle, method)(*arguments))
            except Exception as error:
                connection.send(error)
