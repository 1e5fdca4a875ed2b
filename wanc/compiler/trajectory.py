"""How a recipe samples, as stages are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.model import HIGH
from wanc.runtime.noise import chunk_stream, initial_noise
from wanc.runtime.solvers.base import NoiseOf, Solver
from wanc.runtime.solvers.create import create_solver


@dataclass(frozen=True)
class Trajectory:
    """How the recipe samples: exactly one of `steps` and `timesteps` is set; a guidance of 1 is none."""

    solver: str
    steps: int | None
    timesteps: tuple[float, ...] | None
    shift: float
    guidance_high: float
    guidance_low: float
    boundary: float | None

    def create_solver(self, noise_of: NoiseOf | None = None) -> Solver:
        """A fresh one; `noise_of` gives what it may add behind a step."""
        return create_solver(
            self.solver, shift=self.shift, steps=self.steps, timesteps=self.timesteps, noise_of=noise_of
        )

    def guidance(self, component: str) -> float:
        """The guidance scale of an expert."""
        return self.guidance_high if component == HIGH else self.guidance_low


def noise_of_video(shape: tuple[int, ...], seed: int, cache: CacheFacts | None) -> np.ndarray[Any, Any]:
    """What the runtime begins a video with, float32 [1, channels, frames, height, width]: of a causal model, which has
    a `cache`, that of its chunks.
    """
    if cache is None:
        return initial_noise(shape, seed)
    sizes = [(*shape[:2], frames, *shape[3:]) for frames in cache.lengths(shape[2])]
    chunks = [initial_noise(size, seed, stream=chunk_stream(chunk)) for chunk, size in enumerate(sizes)]
    return np.concatenate(chunks, axis=2)
