"""Videos of an untouched model, with all that a bundle is later held against on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch

from wanc.compiler.trajectory import Trajectory
from wanc.errors import CheckpointError
from wanc.models.wan.untouched import UntouchedComponent
from wanc.runtime.decode import to_pixels
from wanc.runtime.denoise import Expert
from wanc.runtime.model import Model
from wanc.runtime.value import Value, as_values

Array = np.ndarray[Any, Any]
ROWS = 64
"""Of the tokens behind a block, as many are kept, evenly spaced."""


@dataclass
class UntouchedDenoiser:
    """An untouched expert in place of the runtime's parts: branch after branch; `velocities` are those of the last."""

    untouched: UntouchedComponent
    velocities: list[Array] = field(default_factory=list[Array])

    def run_branches(self, graph: str, given: Mapping[str, Mapping[str, Array]]) -> Sequence[Mapping[str, Value]]:
        del graph
        found = [self.untouched.run(inputs) for inputs in given.values()]
        self.velocities = [outputs["velocity"] for outputs in found]
        return [as_values(outputs) for outputs in found]


@dataclass(frozen=True)
class Sampled:
    """Latents before every step and behind the last, [steps + 1, 1, …]; the velocity of each branch at each step, the
    conditional one first, [steps, branches, 1, …]; and the guided ones, [steps, 1, …]. All float32.
    """

    latents: Array
    velocities: list[Array]
    guided: Array


@dataclass(frozen=True)
class Sampler:
    """Samples with a recipe's experts; `model` has its boundary."""

    trajectory: Trajectory
    model: Model
    denoisers: Mapping[str, UntouchedDenoiser]

    @property
    def timesteps(self) -> list[float]:
        return self.trajectory.create_solver().timesteps.tolist()

    def expert_at(self, timestep: float) -> Expert:
        component = self.model.component_at(timestep)
        return Expert(component, self.trajectory.guidance(component))

    def run(
        self,
        noise: Array,
        text: Array,
        negative: Array,
        at_step: Callable[[int, str], AbstractContextManager[object]] = lambda *_: nullcontext(),
    ) -> Sampled:
        """A whole run, from noise [1, channels, frames, height, width] and text states [1, tokens, width].

        A step is made within what `at_step` gives for it and its expert. Raises CheckpointError where values are not
        finite.
        """
        solver = self.trajectory.create_solver()
        latents, velocities, guided = [noise], list[Array](), list[Array]()
        for step, timestep in enumerate(solver.timesteps.tolist()):
            expert = self.expert_at(timestep)
            with at_step(step, expert.component):
                guided.append(self.velocity(latents[-1], timestep, text, negative))
            velocities.append(np.stack(self.denoisers[expert.component].velocities))
            latents.append(solver.step(guided[-1], latents[-1]))
            if not np.isfinite(latents[-1]).all():
                raise CheckpointError(f"{expert.component}: the latents are not finite behind timestep {timestep:g}")
        return Sampled(np.stack(latents), velocities, np.stack(guided))

    def velocity(self, latents: Array, timestep: float, text: Array, negative: Array) -> Array:
        """The guided velocity in one place."""
        expert = self.expert_at(timestep)
        return expert.velocity(self.denoisers[expert.component], latents, timestep, text, negative).copy()


class BlockRows:
    """Rows of the residual stream behind every block of an expert, float32 [rows, width], where they are asked for."""

    def __init__(self, untouched: UntouchedComponent) -> None:
        blocks = cast(Any, untouched.module).blocks
        self._count, self._rows = len(blocks), list[Array]()
        self._missing = 0
        for block in blocks:
            block.register_forward_hook(self._keep)

    def begin(self) -> None:
        """Those of the next execution are kept."""
        self._rows, self._missing = [], self._count

    def taken(self) -> Array:
        """[blocks, rows, width]."""
        return np.stack(self._rows)

    def _keep(self, _part: object, _inputs: object, states: torch.Tensor) -> None:
        if self._missing:
            self._missing -= 1
            self._rows.append(rows_of(states.numpy()))


def rows_of(states: Array) -> Array:
    """Some tokens of [1, tokens, width], evenly spaced: [rows, width]."""
    tokens = states.shape[1]
    chosen = np.linspace(0, tokens - 1, min(ROWS, tokens)).astype(int)
    return states[0, chosen].copy()


def tapped_steps(experts: Sequence[str]) -> Collection[int]:
    """The steps whose blocks are looked at: of each expert the first and the last one."""
    ends: dict[str, list[int]] = {}
    for step, expert in enumerate(experts):
        ends.setdefault(expert, []).append(step)
    return sorted({step for steps in ends.values() for step in (steps[0], steps[-1])})


def pictures(decoder: UntouchedComponent, model: Model, latents: Array) -> Array:
    """The video of clean latents: uint8 [frames, height, width, 3]."""
    per_channel = (1, -1, 1, 1, 1)
    mean, std = (np.array(value, np.float32).reshape(per_channel) for value in (model.latent_mean, model.latent_std))
    chunks = decoder.decode(latents * std + mean)
    return np.concatenate([to_pixels(np.ascontiguousarray(chunk.frames)) for chunk in chunks])
