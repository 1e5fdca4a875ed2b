"""The denoising loop: which expert, which branches, how guidance combines them, and the solver's step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import TargetError
from .pool import Empty
from .progress import OnProgress, ignore
from .solvers.base import Solver
from .value import Value, expect, is_finite

Latents = NDArray[np.float32]
GRAPH, TIMESTEP, TEXT = "step", "timestep", "text"
BRANCHES = ("conditional", "unconditional")
"""Of guidance; without it there is the first alone."""


class Denoiser(Protocol):
    """What executes a denoiser: its parts in a bundle, or what stands for them at build time."""

    def run_branches(
        self, graph: str, given: Mapping[str, Mapping[str, NDArray[Any]]]
    ) -> Sequence[Mapping[str, Value]]: ...


@dataclass(frozen=True)
class Expert:
    """A denoiser, and its guidance scale: 1 runs the conditional branch alone."""

    component: str
    guidance: float

    @property
    def branches(self) -> int:
        """Executions of a step."""
        return 1 if self.guidance == 1.0 else 2

    def velocity(
        self,
        parts: Denoiser,
        latents: Latents,
        timestep: float,
        text: Latents,
        negative: Latents,
        empty: Empty = np.empty,
    ) -> Latents:
        """The guided velocity, shaped as the latents: v(negative) + guidance * (v(text) - v(negative))."""
        return self.guided(self.velocities(parts, latents, timestep, text, negative), empty)

    def velocities(
        self, parts: Denoiser, latents: Latents, timestep: float, text: Latents, negative: Latents
    ) -> list[Latents]:
        """Of each branch, the conditional one first, each shaped as the latents."""
        found = parts.run_branches(GRAPH, given_to_branches(self, latents, timestep, text, negative))
        return [expect(results["velocity"], "velocity", latents.shape) for results in found]

    def guided(self, velocities: Sequence[Latents], empty: Empty = np.empty) -> Latents:
        """What those of the branches come to."""
        if len(velocities) == 1:
            return velocities[0]
        conditional, unconditional = velocities
        guided = np.subtract(conditional, unconditional, out=empty(conditional.shape, np.float32))
        guided *= np.float32(self.guidance)
        guided += unconditional
        return guided


def given_to_branches(
    expert: Expert, latents: Latents, timestep: float, text: Latents, negative: Latents
) -> dict[str, dict[str, Latents]]:
    """What each branch of an expert takes of the loop, by the branch's name, the conditional one first."""
    known = {"latents": latents, TIMESTEP: np.array([timestep], np.float32)}
    texts = zip(BRANCHES[: expert.branches], (text, negative), strict=False)
    return {branch: {**known, TEXT: states} for branch, states in texts}


def denoise(
    parts_of: Callable[[str], Denoiser],
    solver: Solver,
    expert_at: Callable[[float], Expert],
    latents: Latents,
    text: Latents,
    negative: Latents,
    on_progress: OnProgress = ignore,
    empty: Empty = np.empty,
    on_latents: Callable[[Latents], object] = lambda _: None,
) -> Latents:
    """Integrate from noise to clean latents, float32 [1, channels, frames, height, width].

    `text` and `negative` are the branches' text states [1, text_length, width]; `expert_at` chooses by timestep, and
    `parts_of` opens the graphs of the expert's component, whose results are dropped when another expert takes over;
    `empty` makes arrays. `on_latents` is told what stands behind each step.
    Raises TargetError where a NaN or an infinity turns up: it would decode to a picture of nothing.
    """
    parts: Denoiser | None = None
    component = None
    on_progress("denoise", 0, solver.steps)
    for done, timestep in enumerate(solver.timesteps.tolist(), 1):
        expert = expert_at(timestep)
        if parts is None or component != expert.component:
            parts, component = parts_of(expert.component), expert.component
        velocity = expert.velocity(parts, latents, timestep, text, negative, empty)
        latents = solver.step(velocity, latents)
        if not is_finite(latents):
            raise TargetError(
                f"the latents are not finite after the step at timestep {timestep:g}",
                hint="run the bundle's --selftest: this machine may not compute what the build machine did",
            )
        on_latents(latents)
        on_progress("denoise", done, solver.steps)
    return latents
