"""Solvers of the flow ODE, in numpy. Each equals its counterpart in diffusers step by step.

`unipc` is Wan's own choice, `dpm++` its alternative, `euler` what few-step distilled models use, and `lcm` those of
them that take new noise at each step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from ..noise import initial_noise
from ..pool import Empty
from .base import NoiseOf, Solver
from .dpm import DpmSolver
from .euler import EulerSolver
from .lcm import LcmSolver
from .schedule import TRAINING_TIMESTEPS, Schedule
from .unipc import UniPCSolver

SOLVERS: dict[str, type[Solver]] = {
    "unipc": UniPCSolver,
    "euler": EulerSolver,
    "dpm++": DpmSolver,
    "lcm": LcmSolver,
}


def create_schedule(
    name: str, *, shift: float, steps: int | None = None, timesteps: Sequence[float] | None = None
) -> Schedule:
    """The schedule of the solver `name`: see `create_solver` for the arguments and errors."""
    solver = SOLVERS.get(name)
    if solver is None:
        raise UserError(f"no solver is called {name!r}", hint=f"solvers: {', '.join(sorted(SOLVERS))}")
    if not (math.isfinite(shift) and shift > 0):
        raise UserError(f"the shift is {shift}", hint="it has to be a number above 0; Wan2.2 T2V uses 12, I2V 5")
    if (steps is None) == (timesteps is None):
        raise UserError("a schedule takes either a number of steps or a list of timesteps")
    if timesteps is not None:
        return solver.listed_schedule(timesteps, shift)
    assert steps is not None
    if not 1 <= steps <= TRAINING_TIMESTEPS:
        raise UserError(f"{steps} sampling steps", hint=f"ask for 1 to {TRAINING_TIMESTEPS} steps")
    return solver.even_schedule(steps, shift)


def create_solver(
    name: str,
    *,
    shift: float,
    steps: int | None = None,
    timesteps: Sequence[float] | None = None,
    empty: Empty = np.empty,
    noise_of: NoiseOf | None = None,
) -> Solver:
    """A fresh solver for one sampling run.

    Args:
        name: one of `SOLVERS`.
        shift: how far the schedule is warped towards high noise; above 0, and 1 changes nothing.
        steps: the number of denoiser evaluations per branch, 1 to 1000, on the solver's own grid.
        timesteps: instead of `steps`, the falling timesteps of a few-step distilled model before the shift, in
            (0, 1000]: [1000, 750, 500, 250].
        empty: what makes its arrays.
        noise_of: what the noise of a step is taken from, by a solver that adds some; the seed 0 unless given.

    Raises:
        UserError: an unknown name, or numbers that make no schedule.
    """
    schedule = create_schedule(name, shift=shift, steps=steps, timesteps=timesteps)
    solver = SOLVERS[name](schedule, empty)
    solver.noise_of = noise_of or (lambda step, size: initial_noise(size, 0, empty, stream=1 + step))
    return solver
