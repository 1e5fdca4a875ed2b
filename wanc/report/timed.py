"""A bundle in a process of its own, which does as it is told and says how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from wanc.report.chunks import request_for
from wanc.report.timed_chunks import timed_chunks
from wanc.report.timed_clip import MemoryWatch, TimedClip
from wanc.runtime.causal import CausalVideo
from wanc.runtime.denoise import Denoiser
from wanc.runtime.memory import peak_rss_bytes
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.timer import Timer

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class State:
    """Where one step is made: latents, timestep, text states of both branches, and of a causal model clean chunks."""

    latents: Array
    timestep: float
    text: Array
    negative: Array
    past: Sequence[Array] = ()


class TimedBundle:
    """One that is open; `open_seconds` is what that took, verifying included."""

    def __init__(self, path: Path, threads: int | None) -> None:
        started = time.perf_counter()
        self._pipeline = Pipeline.open(path, threads=threads)
        self.open_seconds = time.perf_counter() - started
        self._parts: Callable[[str], Denoiser] | None = None
        self._video: CausalVideo | None = None

    def clip(self, prompt: str, seed: int, noise: Array) -> TimedClip:
        """Make a video file, as `wanc run` does."""
        request = request_for(self._pipeline, prompt, seed, noise)
        return self._at_once(request) if self._pipeline.bundle.cache is None else timed_chunks(self._pipeline, request)

    def _at_once(self, request: Request) -> TimedClip:
        from wanc.runtime.video import create_video

        pipeline, timer = self._pipeline, Timer()
        steps: list[float] = []
        with MemoryWatch("text") as watch, TemporaryDirectory() as folder:
            started = time.perf_counter()
            texts = pipeline.encode(request, timer)
            watch.phase = "denoise"
            steps.append(time.perf_counter())
            start = pipeline.start(request)
            latents = pipeline.sample(start, texts, timer, on_latents=lambda _: steps.append(time.perf_counter()))
            watch.phase = "decode"
            chunks = pipeline.decode([latents], timer)
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
        return TimedClip(phases, watch.samples, len(frames))

    def step(self, state: State) -> float:
        """Seconds of one step, all branches."""
        expert = self._pipeline.expert_at(state.timestep)
        parts = self._parts_at(state)(expert.component)
        started = time.perf_counter()
        expert.velocity(parts, state.latents, state.timestep, state.text, state.negative)
        return time.perf_counter() - started

    def _parts_at(self, state: State) -> Callable[[str], Denoiser]:
        """All states are of one clip: what is past is so once."""
        if self._parts is None:
            pipeline, texts = self._pipeline, (state.text, state.negative)
            if pipeline.bundle.cache is None:
                self._parts = cache(pipeline.parts)
            else:
                self._video = pipeline.video(Request(""), texts)
                for chunk in state.past:
                    self._video.keep(chunk)
                self._parts = self._video.seeing(state.latents)
        return self._parts

    def session_bytes(self) -> int | None:
        """Keys and values that a causal model keeps of the video of which a step was made."""
        return self._video and self._video.cache_bytes

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
