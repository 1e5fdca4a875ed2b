"""Noise schedules: at which noise levels a solver evaluates the denoiser, and what the denoiser is told.

A flow-matching model (Lipman et al., arXiv 2210.02747) sees `x = (1 - sigma) * clean + sigma * noise` for a noise level
sigma in [0, 1] and predicts the velocity `noise - clean`. A schedule is a falling list of sigmas that ends at 0.
Raw sigmas are spaced evenly and then warped towards 1 by the `shift` (Esser et al., arXiv 2403.03206, section 5.3.2).

Each solver has its own grid, equal to that of the scheduler in diffusers that users of Wan know it from. Sigmas are
rounded to float32, as there: near sigma = 1 that rounding is visible in `1 - sigma`, so a schedule in float64 would be
a different one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

TRAINING_TIMESTEPS = 1000

# Sigma = 1 is pure noise, with a log signal-to-noise ratio of minus infinity: multistep solvers start a hair below it.
_LARGEST_SIGMA = 1.0 - 1e-6


@dataclass(frozen=True)
class Schedule:
    """The noise levels of one sampling run.

    `sigmas` is float32 [steps + 1], falls, and ends with 0. `timesteps` is what is fed to the denoiser, [steps]: int64
    for UniPC and DPM-Solver++ (truncated, as the models were sampled), float32 for Euler.
    """

    sigmas: NDArray[np.float32]
    timesteps: NDArray[np.int64] | NDArray[np.float32]

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def apply_shift(sigmas: NDArray[np.float64], shift: float) -> NDArray[np.float64]:
    """Warps sigmas in [0, 1] towards 1; a shift of 1 changes nothing."""
    return shift * sigmas / (1.0 + (shift - 1.0) * sigmas)


def unipc_schedule(steps: int, shift: float) -> Schedule:
    """Raw sigmas from 1 down to one step above 1/1000."""
    raw = np.linspace(1.0, 1.0 / TRAINING_TIMESTEPS, steps + 1)[:-1]
    return _integer_schedule(apply_shift(raw, shift))


def dpm_schedule(steps: int, shift: float) -> Schedule:
    """Raw sigmas from 0.999 down to one step above 0."""
    # Computed in diffusers' order: many of these are a rounding away from an integer timestep, and truncation follows.
    raw = 1.0 - np.linspace(1.0, 1.0 / TRAINING_TIMESTEPS, steps + 1)
    return _integer_schedule(apply_shift(raw, shift)[:0:-1])


def euler_schedule(steps: int, shift: float) -> Schedule:
    """Sigmas from 1 down to the shifted 1/1000, shifted.

    The low end is thus shifted twice. That is how the scheduler in diffusers behaves, and so how models were tuned.
    """
    lowest = np.float32(apply_shift(np.array(1.0 / TRAINING_TIMESTEPS), shift))
    raw = np.linspace(float(TRAINING_TIMESTEPS), float(lowest) * TRAINING_TIMESTEPS, steps) / TRAINING_TIMESTEPS
    return _real_schedule(apply_shift(raw, shift))


def listed_integer_schedule(timesteps: Sequence[float], shift: float) -> Schedule:
    """The schedule of a few-step distilled model: timesteps before the shift, such as 1000, 750, 500, 250."""
    return _integer_schedule(apply_shift(_raw_sigmas(timesteps), shift))


def listed_real_schedule(timesteps: Sequence[float], shift: float) -> Schedule:
    """As `listed_integer_schedule`, with timesteps that are not truncated."""
    return _real_schedule(apply_shift(_raw_sigmas(timesteps), shift))


def count_high_noise_steps(timesteps: NDArray[np.int64] | NDArray[np.float32], boundary: float) -> int:
    """How many steps belong to the high-noise expert: those whose timestep is at least `boundary` * 1000."""
    return int(np.count_nonzero(timesteps >= boundary * TRAINING_TIMESTEPS))


def _raw_sigmas(timesteps: Sequence[float]) -> NDArray[np.float64]:
    values = np.asarray(timesteps, dtype=np.float64)
    in_range = values.ndim == 1 and values.size > 0 and bool(np.all((values > 0) & (values <= TRAINING_TIMESTEPS)))
    if not in_range or bool(np.any(np.diff(values) >= 0)):
        raise UserError(
            f"the timesteps {list(timesteps)} cannot be a schedule",
            hint=f"give falling numbers above 0 and up to {TRAINING_TIMESTEPS}, such as 1000, 750, 500, 250",
        )
    return values / TRAINING_TIMESTEPS


def _integer_schedule(sigmas: NDArray[np.float64]) -> Schedule:
    sigmas = np.minimum(sigmas, _LARGEST_SIGMA)
    return Schedule(_end_at_zero(sigmas), (sigmas * TRAINING_TIMESTEPS).astype(np.int64))


def _real_schedule(sigmas: NDArray[np.float64]) -> Schedule:
    ending = _end_at_zero(sigmas)
    return Schedule(ending, ending[:-1] * np.float32(TRAINING_TIMESTEPS))


def _end_at_zero(sigmas: NDArray[np.float64]) -> NDArray[np.float32]:
    ending = np.append(sigmas, 0.0).astype(np.float32)
    if bool(np.any(np.diff(ending) >= 0)):
        raise UserError("two steps have the same noise level", hint="take a smaller shift, or timesteps further apart")
    return ending
