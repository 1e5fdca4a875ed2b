"""A causal model's video file, made as `wanc run` makes it: later chunks while earlier ones are decoded and written."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from wanc.report.timed_clip import MemoryWatch, TimedClip
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.timer import Timer

Array = np.ndarray[Any, Any]


@dataclass
class EachPhase(Timer):
    """A timer that also knows how long a phase took each time."""

    each: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    @contextmanager
    def phase(self, name: str) -> Generator[None]:
        before = self.seconds.get(name, 0.0)
        with super().phase(name):
            yield
        self.each.setdefault(name, []).append(self.seconds[name] - before)


def timed_chunks(pipeline: Pipeline, request: Request) -> TimedClip:
    """Make a video file: seconds by phase, and the memory on the way."""
    from wanc.runtime.video import create_video

    shape, timer = pipeline.bundle.shape(request.shape, request.frames), EachPhase()
    steps: list[float] = []

    def told(phase: str, _done: int, _total: int) -> None:
        if phase == "denoise":
            steps.append(time.perf_counter())

    with MemoryWatch("chunks") as watch, TemporaryDirectory() as folder:
        path, fps = Path(folder) / "video.mp4", pipeline.bundle.sampling.fps
        started = time.perf_counter()
        with (
            create_video(path, height=shape.height, width=shape.width, fps=fps) as video,
            pipeline.frames(request, timer, told) as frames,
        ):
            video.write(next(frames))
            first_frame = time.perf_counter()
            for piece in frames:
                video.write(piece)
        ended = time.perf_counter()
    chunks = timer.each["denoise"]
    experts = [pipeline.expert_at(at).component for at in pipeline.start(request)[0].timesteps.tolist()]
    phases = {
        **timer.seconds,
        **_of_steps(np.diff(np.reshape(steps, (len(chunks), -1))), experts),
        **_of_chunks(chunks),
        "first_frame": first_frame - started,
        "total": ended - started,
    }
    return TimedClip(phases, watch.samples, shape.frames)


def _of_steps(seconds: Array, experts: Sequence[str]) -> dict[str, float]:
    """Of [chunks, steps] the first, which opens engines, and each expert's behind the first chunk."""
    found = {"first_step": float(seconds[0, 0])}
    for expert in dict.fromkeys(experts):
        own = [step for step, other in enumerate(experts) if other == expert]
        if len(seconds) > 1:
            found[f"step {expert}"] = float(np.median(seconds[1:, own]))
    return found


def _of_chunks(seconds: Sequence[float]) -> dict[str, float]:
    """The first, which opens engines, the second, and the last but one: behind the last there is no clean pass."""
    found = {"first_chunk": seconds[0]}
    if len(seconds) > 3:
        found |= {"early_chunk": seconds[1], "late_chunk": seconds[-2]}
    return found
