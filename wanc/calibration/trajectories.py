"""Sampling runs of torch experts, many requests at a time, and how far the runs of other experts are from them.

The runtime's own solver makes the steps: what is measured here is what a bundle will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from wanc.runtime.solvers.base import NoiseOf, Solver

# Added where an error may be none at all, and its logarithm or a ratio is wanted.
NO_ERROR = 1e-20

Denoiser = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents [n, channels, frames, height, width], timesteps [n], text [n, tokens, width]) to velocities [as latents]."""


@dataclass(frozen=True)
class States:
    """What an expert is asked in `n` places: latents as the noise of `Requests`, timesteps [n], text states."""

    latents: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor
    negative: torch.Tensor

    def __len__(self) -> int:
        return len(self.timesteps)

    def __getitem__(self, chosen: torch.Tensor) -> States:
        return States(self.latents[chosen], self.timesteps[chosen], self.text[chosen], self.negative[chosen])

    @classmethod
    def joined(cls, parts: Sequence[States]) -> States:
        """All of them, one after the other."""
        names = ("latents", "timesteps", "text", "negative")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Requests:
    """What `n` runs start from: noise [n, channels, frames, height, width], and text states [n, tokens, width].

    `seeds`, int64 [n], are those of what a solver may add on the way.
    """

    noise: torch.Tensor
    text: torch.Tensor
    negative: torch.Tensor
    seeds: torch.Tensor

    def __len__(self) -> int:
        return len(self.noise)

    def __getitem__(self, chosen: slice | torch.Tensor) -> Requests:
        return Requests(self.noise[chosen], self.text[chosen], self.negative[chosen], self.seeds[chosen])

    def at(self, latents: torch.Tensor, timestep: float) -> States:
        """Where all of these runs are at a timestep."""
        return States(latents, torch.full((len(self),), float(timestep)), self.text, self.negative)


@dataclass(frozen=True)
class Run:
    """Latents before every step and after the last, [steps + 1, n, …]; the guided velocity at each, [steps, n, …]."""

    latents: torch.Tensor
    velocities: torch.Tensor

    @classmethod
    def of(
        cls,
        solver: Solver,
        noise: torch.Tensor,
        velocity_at: Callable[[int, torch.Tensor], torch.Tensor],
        stop: int | None = None,
    ) -> Run:
        """Go from noise up to the step `stop`; `velocity_at` is told the step and the latents before it."""
        latents, velocities = [noise], list[torch.Tensor]()
        for step in range(solver.steps)[:stop]:
            velocities.append(velocity_at(step, latents[-1]))
            latents.append(torch.from_numpy(solver.step(velocities[-1].numpy(), latents[-1].numpy())))
        return cls(torch.stack(latents), torch.stack(velocities))


def guided_velocity(denoiser: Denoiser, states: States, guidance: float) -> torch.Tensor:
    """v(negative) + guidance · (v(text) − v(negative)), of both branches in one batch."""
    latents, timesteps = torch.cat([states.latents] * 2), torch.cat([states.timesteps] * 2)
    both = denoiser(latents, timesteps, torch.cat([states.text, states.negative]))
    conditional, unconditional = both.chunk(2)
    return unconditional + guidance * (conditional - unconditional)


class CreateSolver(Protocol):
    """Makes a fresh solver; `noise_of` gives what it may add behind a step."""

    def __call__(self, *, noise_of: NoiseOf | None = None) -> Solver: ...


@dataclass(frozen=True)
class TrajectorySampling:
    """How runs are made: a fresh solver for each, and the guidance of the high- and of the low-noise expert.

    The high-noise expert makes the first `high_steps` steps.
    """

    create_solver: CreateSolver = field(repr=False)
    guidance: tuple[float, float]
    high_steps: int

    @property
    def steps(self) -> int:
        return self.create_solver().steps

    @property
    def timesteps(self) -> list[float]:
        return self.create_solver().timesteps.tolist()

    def expert_at(self, step: int) -> int:
        """0 for the high-noise expert, 1 for the low-noise one."""
        return int(step >= self.high_steps)

    def steps_of(self, expert: int) -> range:
        """The steps that an expert makes."""
        return range(self.high_steps, self.steps) if expert else range(self.high_steps)

    def states(self, requests: Requests, run: Run, step: int) -> States:
        """What an expert is asked at a step of a run of these requests; its answer is shaped as the run's velocity."""
        return requests.at(run.latents[step], self.timesteps[step])

    @torch.no_grad()
    def run(
        self,
        experts: Sequence[Denoiser],
        requests: Requests,
        *,
        stop: int | None = None,
        known: Sequence[torch.Tensor] = (),
    ) -> Run:
        """Sample every request with these two experts, without gradients; steps from `stop` on need not be made.

        `known` are guided velocities of the first steps, which no expert is asked for.
        """
        timesteps = self.timesteps

        def velocity_at(step: int, latents: torch.Tensor) -> torch.Tensor:
            if step < len(known):
                return known[step]
            expert = self.expert_at(step)
            return guided_velocity(experts[expert], requests.at(latents, timesteps[step]), self.guidance[expert])

        return Run.of(self.create_solver(), requests.noise, velocity_at, stop)


def errors(actual: Run, expected: Run) -> torch.Tensor:
    """The mean squared error of the latents after every step of every request, [steps, n]."""
    return (actual.latents - expected.latents)[1:].square().flatten(2).mean(dim=2)


@torch.no_grad()
def influence(
    experts: Sequence[Denoiser],
    sampling: TrajectorySampling,
    requests: Requests,
    expected: Run,
    wrong: Denoiser,
    expert: int,
) -> torch.Tensor:
    """How far an error of one expert's velocity moves the final latents: the ratio of mean squares, by its steps.

    Float `experts` make all steps but one of the `expected` run, and `wrong` that one, in the place of the expert of
    this number. The geometric mean over the requests: some are about to tip over to another picture, and whatever
    pushes them moves them far.
    """
    ratios: list[torch.Tensor] = []
    for step in sampling.steps_of(expert):
        states = sampling.states(requests, expected, step)
        velocity = guided_velocity(wrong, states, sampling.guidance[expert])
        known = [*expected.velocities[:step], velocity]
        final = sampling.run(experts, requests, known=known).latents[-1]
        error = (velocity - expected.velocities[step]).square().flatten(1).mean(dim=1)
        moved = (final - expected.latents[-1]).square().flatten(1).mean(dim=1)
        ratios.append(((moved + NO_ERROR) / (error + NO_ERROR)).log().mean().exp())
    return torch.stack(ratios)
