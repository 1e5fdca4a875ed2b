"""Euler's method on the flow ODE dx/dsigma = velocity (Lipman et al., arXiv 2210.02747)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from .base import Exact, Solver
from .schedule import Schedule, euler_schedule, listed_real_schedule


class EulerSolver(Solver):
    """First order, without history: also the sampler of few-step distilled models."""

    name: ClassVar[str] = "euler"
    history: ClassVar[int] = 0

    @classmethod
    def even_schedule(cls, steps: int, shift: float) -> Schedule:
        return euler_schedule(steps, shift)

    @classmethod
    def listed_schedule(cls, timesteps: Sequence[float], shift: float) -> Schedule:
        return listed_real_schedule(timesteps, shift)

    def _advance(self, velocity: Exact, latents: Exact, kept: Exact) -> Exact:  # noqa: ARG002
        sigma, target = self._sigmas[self.step_index : self.step_index + 2]
        return latents + (target - sigma) * velocity
