"""Whole videos of a bundle, from the reference's noise: how far it has drifted behind each step, and what is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wanc.report.chunks import request_of
from wanc.report.document import Drift, WorstFrame
from wanc.report.reference import ReferenceClip
from wanc.report.statistics import cosine, sqnr_db
from wanc.runtime.causal import CausalVideo
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.timer import Timer

Array = np.ndarray[Any, Any]
WORST = 5
"""Frames that are named."""


@dataclass(frozen=True)
class FreeRun:
    """Latents before every step and behind the last, float32 [steps + 1, 1, …]; frames uint8 [frames, h, w, 3]."""

    latents: Array
    frames: Array


def free_run(pipeline: Pipeline, clip: ReferenceClip) -> FreeRun:
    """A clip's video as the bundle makes it, its own text states and guidance included. Raises what `generate` does."""
    request, timer = request_of(pipeline, clip), Timer()
    texts = pipeline.encode(request, timer)
    if pipeline.bundle.cache is not None:
        with pipeline.room(request):
            latents = causal_latents(pipeline.video(request, texts), pipeline.latent_frames(request))
            return FreeRun(latents, decoded_frames(pipeline, latents[-1]))
    start = pipeline.start(request)
    steps = [start[1].copy()]
    final = pipeline.sample(start, texts, timer, on_latents=lambda array: steps.append(array.copy()))
    return FreeRun(np.stack(steps), decoded_frames(pipeline, final))


def causal_latents(video: CausalVideo, frames: int, meanwhile: Callable[[], object] = lambda: None) -> Array:
    """Those of each chunk at each step of its own, side by side in time; `meanwhile` is called behind each chunk."""
    lengths, found = video.model.facts.lengths(frames), list[Array]()
    for number, length in enumerate(lengths):
        steps = [video.noise_of(number, length).copy()]
        video.make(
            length,
            on_latents=lambda array, steps=steps: steps.append(array.copy()),
            is_last=number == len(lengths) - 1,
        )
        found.append(np.stack(steps))
        meanwhile()
    return np.concatenate(found, axis=3)


def decoded_frames(pipeline: Pipeline, latents: Array) -> Array:
    """All frames of clean latents, uint8 [frames, height, width, 3]. Raises what `Pipeline.decode` raises."""
    return np.concatenate([chunk.copy() for chunk in pipeline.decode([latents], Timer())])


def drift(latents: Sequence[Array], clips: Sequence[ReferenceClip]) -> list[Drift]:
    """Behind each step, mean over clips; `latents` are of a run for each clip."""
    found: list[Drift] = []
    expected = [clip.latents for clip in clips]
    for step in range(1, len(expected[0])):
        pairs = [(run[step], wanted[step]) for run, wanted in zip(latents, expected, strict=True)]
        found.append(
            Drift(
                step=step - 1,
                cosine=float(np.mean([cosine(*pair) for pair in pairs])),
                sqnr_db=float(np.mean([sqnr_db(*pair) for pair in pairs])),
            )
        )
    return found


def worst_frames(psnr_db: Mapping[int, Sequence[float]]) -> list[WorstFrame]:
    """The frames, by clip, that are furthest from the reference's."""
    frames = [
        WorstFrame(clip=clip, frame=frame, psnr_db=value)
        for clip, values in psnr_db.items()
        for frame, value in enumerate(values)
    ]
    return sorted(frames, key=lambda frame: frame.psnr_db)[:WORST]
