"""A text-to-video model of a few hundred weights, quick enough to be trained in a test."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch, an extra")

from wanc.calibration.decision import Decision  # noqa: E402
from wanc.calibration.trajectories import Requests, TrajectorySampling  # noqa: E402
from wanc.calibration.weights import round_to_nearest  # noqa: E402
from wanc.runtime.solvers.create import create_solver  # noqa: E402

SHAPE = (2, 1, 2, 3)
LATENTS, TOKENS, TEXT, HIDDEN = 12, 3, 5, 128
LEVELS = 3  # so coarse that training has much to mend
SAMPLING = TrajectorySampling(partial(create_solver, "unipc", shift=3.0, steps=6), (2.0, 1.5), 2)


class SmallExpert(torch.nn.Module):
    """Two Linears, around a GELU, on latents, timestep and text side by side."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first = torch.nn.Linear(LATENTS + 1 + TEXT, HIDDEN)
        self.second = torch.nn.Linear(HIDDEN, LATENTS)
        random = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data.normal_(std=parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.1, generator=random)
        self.requires_grad_(False)

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        seen = torch.cat([latents.flatten(1), timesteps[:, None] / 1000, text.mean(dim=1)], dim=1)
        return self.second(torch.nn.functional.gelu(self.first(seen))).reshape(latents.shape)


def experts() -> list[SmallExpert]:
    return [SmallExpert(0), SmallExpert(1)]


def requests(count: int, seed: int = 0) -> Requests:
    random = torch.Generator().manual_seed(seed)
    noise, text = torch.randn(count, *SHAPE, generator=random), torch.randn(count, TOKENS, TEXT, generator=random)
    return Requests(noise, text, torch.zeros(count, TOKENS, TEXT), torch.arange(count))


def decisions(expert: SmallExpert, activation_scale: float | None = None) -> dict[str, Decision]:
    linears = {"first": expert.first, "second": expert.second}
    return {
        name: Decision(round_to_nearest(linear.weight.numpy(), levels=LEVELS), None, activation_scale)
        for name, linear in linears.items()
    }


def equal(one: dict[str, Decision], other: dict[str, Decision]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name].codes.values, other[name].codes.values)
        and np.array_equal(one[name].codes.scales, other[name].codes.scales)
        for name in one
    )
