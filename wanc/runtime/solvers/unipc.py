"""UniPC of order 2: a multistep predictor, and a corrector that costs no evaluation (Zhao et al., arXiv 2302.04867).

Notation of the paper, for the clean-sample prediction m and the half log signal-to-noise ratio lambda: a step goes over
`h` from lambda(s) to lambda(t), with B(h) = exp(-h) - 1 (their "bh2"). Each step makes a prediction of x(t); once the
denoiser has seen it, the new m(t) serves to make the same step again, better, before the next one starts there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from .base import Exact, Solver, log_snr
from .schedule import Schedule, listed_integer_schedule, unipc_schedule


@dataclass(frozen=True)
class _Stride:
    """The step last predicted: all that its corrector needs."""

    first_order: Exact  # x(t) to first order
    scale: float  # -alpha(t) * B(h)
    width: float  # h
    clean: Exact  # m(s)
    slope: Exact | None  # (m before s - m(s)) / ratio; None at order 1
    ratio: float  # where the point before s lies, in units of h: negative

    def predict(self) -> Exact:
        """UniP: x(t) from what is known at s and before."""
        return self.first_order if self.slope is None else self.first_order + (0.5 * self.scale) * self.slope

    def correct(self, clean: Exact) -> Exact:
        """UniC: x(t) again, with m(t) known."""
        if self.slope is None:
            return self.first_order + (0.5 * self.scale) * (clean - self.clean)
        on_slope, on_change = _corrector_weights(self.width, self.ratio)
        return self.first_order + self.scale * on_slope * self.slope + self.scale * on_change * (clean - self.clean)


class UniPCSolver(Solver):
    """Order 2, first order for the first and the last prediction."""

    name: ClassVar[str] = "unipc"

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        self._stride: _Stride | None = None

    @classmethod
    def even_schedule(cls, steps: int, shift: float) -> Schedule:
        return unipc_schedule(steps, shift)

    @classmethod
    def listed_schedule(cls, timesteps: Sequence[float], shift: float) -> Schedule:
        return listed_integer_schedule(timesteps, shift)

    def _advance(self, velocity: Exact, latents: Exact) -> Exact:
        clean = latents - self._sigmas[self.step_index] * velocity
        if self._stride is not None:
            latents = self._stride.correct(clean)
        self._stride = self._plan(clean, latents)
        return self._stride.predict()

    def _plan(self, clean: Exact, latents: Exact) -> _Stride:
        sigma, target = self._sigmas[self.step_index : self.step_index + 2]
        width = log_snr(target) - log_snr(sigma)
        scale = -(1.0 - target) * math.expm1(-width)
        first_order = (target / sigma) * latents + scale * clean
        if self._stride is None or target == 0.0:
            return _Stride(first_order, scale, width, clean, slope=None, ratio=math.nan)
        ratio = (log_snr(self._sigmas[self.step_index - 1]) - log_snr(sigma)) / width
        return _Stride(first_order, scale, width, clean, (self._stride.clean - clean) / ratio, ratio)


def _corrector_weights(width: float, ratio: float) -> tuple[float, float]:
    """Weights of the slope and of m(t) - m(s): the order conditions [[1, 1], [ratio, 1]] @ weights = moments."""
    growth = math.expm1(-width)
    phi_1 = growth / -width - 1.0
    phi_2 = phi_1 / -width - 0.5
    first_moment, second_moment = phi_1 / growth, 2.0 * phi_2 / growth
    on_slope = (first_moment - second_moment) / (1.0 - ratio)
    return on_slope, first_moment - on_slope
