"""What all solvers share: the schedule, the count of steps and the check of what comes in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..pool import Empty
from .schedule import Schedule

Latents = NDArray[np.float32]
Exact = NDArray[np.float64]  # latents inside a solver
NoiseOf = Callable[[int, tuple[int, ...]], Latents]
"""Standard normal noise of a shape, for a step by its number, from 0."""
BLOCK = 4096
"""Elements that are moved at once: all that a step computes of them on its way stays in the processor's caches."""


class Solver(ABC):
    """Integrates the flow from noise to a clean sample, one denoiser evaluation per step.

    A solver serves one sampling run: it keeps the history that a multistep method needs. It takes and gives float32 and
    computes in float64, because UniPC carries a sample through all the steps and would gather their roundings.
    """

    name: ClassVar[str]
    history: ClassVar[int]
    """Numbers that it keeps of each element from one step to the next."""
    noise_of: NoiseOf
    """What one that adds noise anew takes it from; others never ask."""

    def __init__(self, schedule: Schedule, empty: Empty = np.empty) -> None:
        self.schedule, self._empty = schedule, empty
        self.step_index = 0
        self._kept: Exact | None = None
        self._sigmas = [float(sigma) for sigma in schedule.sigmas]

    @classmethod
    @abstractmethod
    def even_schedule(cls, steps: int, shift: float) -> Schedule:
        """The solver's own grid."""

    @classmethod
    @abstractmethod
    def listed_schedule(cls, timesteps: Sequence[float], shift: float) -> Schedule:
        """The grid of a few-step model."""

    @property
    def steps(self) -> int:
        return self.schedule.steps

    @property
    def timesteps(self) -> NDArray[np.int64] | NDArray[np.float32]:
        """What is fed to the denoiser at each step, [steps]."""
        return self.schedule.timesteps

    @property
    def sigmas(self) -> NDArray[np.float32]:
        """The noise level before each step, and after the last one, [steps + 1]."""
        return self.schedule.sigmas

    def step(self, velocity: Latents, latents: Latents) -> Latents:
        """Moves the latents to the next noise level.

        Args:
            velocity: the denoiser's output for `latents` at `timesteps[step_index]`, guidance applied; float32.
            latents: what the previous step returned (the initial noise at first); float32, the same shape.

        Returns:
            The next latents: float32, the same shape, a new array.
        """
        if self.step_index >= self.steps:
            raise RuntimeError(f"the schedule has {self.steps} steps, and all of them were made")
        if velocity.shape != latents.shape or velocity.dtype != np.float32 or latents.dtype != np.float32:
            raise ValueError(
                f"velocity {velocity.dtype} {velocity.shape} and latents {latents.dtype} {latents.shape}: "
                "both have to be float32 and of one shape"
            )
        if self._kept is None:
            self._kept = self._empty((self.history, latents.size), np.float64)
        following = self._empty(latents.shape, np.float32)
        velocities, before, behind = (array.reshape(-1) for array in (velocity, latents, following))
        for start in range(0, latents.size, BLOCK):
            block = slice(start, start + BLOCK)
            exact = velocities[block].astype(np.float64), before[block].astype(np.float64)
            behind[block] = self._advance(*exact, self._kept[:, block])
        self.step_index += 1
        return following

    @abstractmethod
    def _advance(self, velocity: Exact, latents: Exact, kept: Exact) -> Exact:
        """One step from `step_index` to `step_index + 1` for some of the elements; `kept`, [history, elements], is what
        was kept of them, and is renewed here.
        """


def log_snr(sigma: float) -> float:
    """Half the log of the signal-to-noise ratio, the `lambda` of the papers: log((1 - sigma) / sigma)."""
    return math.inf if sigma == 0.0 else math.log(1.0 - sigma) - math.log(sigma)
