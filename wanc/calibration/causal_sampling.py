"""Sampling runs of torch experts that look back alone: chunk by chunk, each behind what the run has made before.

What is known of chunks lies side by side in time, each at a step of its own. An expert is asked of all of them at once,
beside the clean ones that its run comes to: so a student learns behind its own errors, which travel by way of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import numpy as np
import torch

from wanc.calibration.trajectories import Denoiser, Requests, Run, States, TrajectorySampling, guided_velocity
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.noise import chunk_stream, initial_noise
from wanc.runtime.solvers.base import NoiseOf

IN_TIME = 3
"""The axis of latent frames in what is known of all steps."""


class LooksBack(Protocol):
    """A causal expert: a Denoiser of clean and noisy chunks side by side, `behind` one of clean ones and a last one."""

    @property
    def behind(self) -> Denoiser: ...


@dataclass(frozen=True)
class CausalSampling(TrajectorySampling):
    """How runs of causal experts are made: in chunks, as `facts` divide a video."""

    facts: CacheFacts

    def states(self, requests: Requests, run: Run, step: int) -> States:
        """All chunks at this step, behind what they have become: [clean frames | noisy frames]."""
        return requests.at(torch.cat([run.latents[-1], run.latents[step]], dim=2), self.timesteps[step])

    @torch.no_grad()
    def run(
        self,
        experts: Sequence[Denoiser],
        requests: Requests,
        *,
        stop: int | None = None,
        known: Sequence[torch.Tensor] = (),
    ) -> Run:
        """As of other models, but all steps are made: later chunks look back at what comes of them."""
        del stop
        lengths, runs = self.facts.lengths(requests.noise.shape[2]), list[Run]()
        for chunk, noise in enumerate(requests.noise.split(lengths, dim=2)):
            past = [one.latents[-1] for one in runs]
            of_chunk = [of_step.split(lengths, dim=2)[chunk] for of_step in known]
            velocity_at = partial(self._velocity, experts, requests, past, of_chunk)
            runs.append(Run.of(self.create_solver(noise_of=_added(requests, chunk)), noise, velocity_at))
        return Run(
            torch.cat([one.latents for one in runs], dim=IN_TIME),
            torch.cat([one.velocities for one in runs], dim=IN_TIME),
        )

    def _velocity(
        self,
        experts: Sequence[Denoiser],
        requests: Requests,
        past: Sequence[torch.Tensor],
        known: Sequence[torch.Tensor],
        step: int,
        latents: torch.Tensor,
    ) -> torch.Tensor:
        """The guided one of a chunk, behind clean ones."""
        if step < len(known):
            return known[step]
        expert = self.expert_at(step)
        states = requests.at(torch.cat([*past, latents], dim=2), self.timesteps[step])
        return guided_velocity(cast(LooksBack, experts[expert]).behind, states, self.guidance[expert])


def _added(requests: Requests, chunk: int) -> NoiseOf:
    """What the runtime adds behind the steps of a chunk, of each request by its seed."""

    def noise_of(step: int, shape: tuple[int, ...]) -> np.ndarray:
        stream = chunk_stream(chunk, step)
        return np.concatenate([initial_noise((1, *shape[1:]), int(seed), stream=stream) for seed in requests.seeds])

    return noise_of
