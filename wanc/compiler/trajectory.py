"""How a recipe samples, as stages are told."""

from __future__ import annotations

from dataclasses import dataclass

from wanc.runtime.model import HIGH
from wanc.runtime.solvers.base import Solver
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

    def create_solver(self) -> Solver:
        return create_solver(self.solver, shift=self.shift, steps=self.steps, timesteps=self.timesteps)

    def guidance(self, component: str) -> float:
        """The guidance scale of an expert."""
        return self.guidance_high if component == HIGH else self.guidance_low
