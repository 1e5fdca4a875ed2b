"""Whole videos of a bundle, from the reference's noise: how far it has drifted behind each step, and what is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wanc.report.document import Drift, WorstFrame
from wanc.report.reference import ReferenceClip
from wanc.report.statistics import cosine, sqnr_db
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.timer import Timer

Array = np.ndarray[Any, Any]
WORST = 5
"""Frames that are named."""


@dataclass(frozen=True)
class FreeRun:
    """Latents before every step and behind the last, float32 [steps + 1, 1, …]; frames uint8 [frames, h, w, 3]."""

    latents: Array
    frames: Array


def free_run(pipeline: Pipeline, prompt: str, noise: Array) -> FreeRun:
    """A video as the bundle makes it, its own text states and guidance included. Raises what `generate` raises."""
    shape = next(shape for shape in pipeline.bundle.shapes if pipeline.bundle.latent_shape(shape) == noise.shape)
    request, timer = Request(prompt, latents=noise, shape=shape.name), Timer()
    latents = [noise]
    texts = pipeline.encode(request, timer)
    final = pipeline.sample(
        pipeline.start(request), texts, timer, on_latents=lambda array: latents.append(array.copy())
    )
    frames = np.concatenate([chunk.copy() for chunk in pipeline.decode(final, timer)])
    return FreeRun(np.stack(latents), frames)


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
