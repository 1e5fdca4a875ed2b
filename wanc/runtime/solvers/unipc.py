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
    """One step. Of each element three numbers are kept, all that its corrector needs: `first_order`, x(t) to first
    order, `clean`, m(s), and, at order 2, `slope`, (m before s - m(s)) / ratio.
    """

    scale: float  # -alpha(t) * B(h)
    width: float  # h
    ratio: float | None  # where the point before s lies, in units of h: negative; None at order 1

    def predict(self, first_order: Exact, slope: Exact) -> Exact:
        """UniP: x(t) from what is known at s and before."""
        return first_order if self.ratio is None else first_order + (0.5 * self.scale) * slope

    def correct(self, new_clean: Exact, first_order: Exact, clean: Exact, slope: Exact) -> Exact:
        """UniC: x(t) again, with m(t) known."""
        if self.ratio is None:
            return first_order + (0.5 * self.scale) * (new_clean - clean)
        on_slope, on_change = _corrector_weights(self.width, self.ratio)
        return first_order + self.scale * on_slope * slope + self.scale * on_change * (new_clean - clean)


class UniPCSolver(Solver):
    """Order 2, first order for the first and the last prediction."""

    name: ClassVar[str] = "unipc"
    history: ClassVar[int] = 3

    @classmethod
    def even_schedule(cls, steps: int, shift: float) -> Schedule:
        return unipc_schedule(steps, shift)

    @classmethod
    def listed_schedule(cls, timesteps: Sequence[float], shift: float) -> Schedule:
        return listed_integer_schedule(timesteps, shift)

    def _advance(self, velocity: Exact, latents: Exact, kept: Exact) -> Exact:
        sigma, target = self._sigmas[self.step_index : self.step_index + 2]
        first_order, last_clean, slope = kept
        stride = self._stride(self.step_index)
        clean = latents - sigma * velocity
        if self.step_index:
            latents = self._stride(self.step_index - 1).correct(clean, *kept)
        if stride.ratio is not None:
            slope[:] = (last_clean - clean) / stride.ratio
        first_order[:] = (target / sigma) * latents + stride.scale * clean
        last_clean[:] = clean
        return stride.predict(first_order, slope)

    def _stride(self, index: int) -> _Stride:
        sigma, target = self._sigmas[index : index + 2]
        width = log_snr(target) - log_snr(sigma)
        scale = -(1.0 - target) * math.expm1(-width)
        if not index or target == 0.0:
            return _Stride(scale, width, ratio=None)
        return _Stride(scale, width, (log_snr(self._sigmas[index - 1]) - log_snr(sigma)) / width)


def _corrector_weights(width: float, ratio: float) -> tuple[float, float]:
    """Weights of the slope and of m(t) - m(s): the order conditions [[1, 1], [ratio, 1]] @ weights = moments."""
    growth = math.expm1(-width)
    phi_1 = growth / -width - 1.0
    phi_2 = phi_1 / -width - 0.5
    first_moment, second_moment = phi_1 / growth, 2.0 * phi_2 / growth
    on_slope = (first_moment - second_moment) / (1.0 - ratio)
    return on_slope, first_moment - on_slope
