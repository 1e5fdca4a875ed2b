"""DPM-Solver++(2M): a second-order multistep solver on the clean-sample prediction (Lu et al., arXiv 2211.01095)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from .base import Exact, Solver, log_snr
from .schedule import Schedule, dpm_schedule, listed_integer_schedule


class DpmSolver(Solver):
    """The midpoint form (algorithm 2 of the paper), first order at both ends of the schedule."""

    name: ClassVar[str] = "dpm++"
    history: ClassVar[int] = 1

    @classmethod
    def even_schedule(cls, steps: int, shift: float) -> Schedule:
        return dpm_schedule(steps, shift)

    @classmethod
    def listed_schedule(cls, timesteps: Sequence[float], shift: float) -> Schedule:
        return listed_integer_schedule(timesteps, shift)

    def _advance(self, velocity: Exact, latents: Exact, kept: Exact) -> Exact:
        (previous_clean,) = kept
        sigma, target = self._sigmas[self.step_index : self.step_index + 2]
        clean = latents - sigma * velocity
        width = log_snr(target) - log_snr(sigma)
        weight = -(1.0 - target) * math.expm1(-width)  # how far to go towards the clean sample
        following = (target / sigma) * latents + weight * clean
        # The last step ends at an infinite signal-to-noise ratio, where the slope below has no meaning.
        if self.step_index and target > 0.0:
            previous_width = log_snr(sigma) - log_snr(self._sigmas[self.step_index - 1])
            following += (0.5 * weight * width / previous_width) * (clean - previous_clean)
        previous_clean[:] = clean
        return following
