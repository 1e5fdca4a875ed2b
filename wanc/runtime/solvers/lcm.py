"""Sampling of distilled models that were trained to see the clean sample at once: noise is added anew for each step.

Each step goes all the way to the clean sample, and back to the next noise level with other noise, as in latent
consistency models (Luo et al., arXiv 2310.04378) and as Self-Forcing does (Huang et al., arXiv 2506.08009).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .base import Exact, Latents
from .euler import EulerSolver


class LcmSolver(EulerSolver):
    """On Euler's schedules; takes `noise_of`, which gives the noise of a step."""

    name: ClassVar[str] = "lcm"
    history: ClassVar[int] = 1

    def step(self, velocity: Latents, latents: Latents) -> Latents:
        if self._kept is None:
            self._kept = self._empty((self.history, latents.size), np.float64)
        if self.step_index + 1 < self.steps:
            self._kept[0] = self.noise_of(self.step_index, latents.shape).reshape(-1)
        return super().step(velocity, latents)

    def _advance(self, velocity: Exact, latents: Exact, kept: Exact) -> Exact:
        sigma, target = self._sigmas[self.step_index : self.step_index + 2]
        clean = latents - sigma * velocity
        return clean if target == 0 else (1 - target) * clean + target * kept[0]
