"""Videos of an untouched model, with all that a bundle is later held against on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from wanc.compiler.trajectory import Trajectory, noise_of_video
from wanc.errors import CheckpointError
from wanc.models.wan.untouched import UntouchedComponent
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.decode import to_pixels
from wanc.runtime.denoise import Expert
from wanc.runtime.kvcache import KeyValueWindow
from wanc.runtime.model import Model
from wanc.runtime.noise import chunk_stream, initial_noise
from wanc.runtime.value import Value, as_values

Array = np.ndarray[Any, Any]
IN_TIME = 3
"""The axis of latent frames in what is known of all steps, or of all branches."""
ROWS = 64
"""Of the tokens behind a block, as many are kept, evenly spaced."""


class StepPlace(NamedTuple):
    """A step that is made: its number, its expert, and how many latent frames there are before the chunk and in it."""

    step: int
    expert: str
    before: int
    frames: int


AtStep = Callable[[StepPlace], AbstractContextManager[object]]


@dataclass
class UntouchedDenoiser:
    """An untouched expert in place of the runtime's parts: branch after branch; `velocities` are those of the last.

    A causal one has a `window`, and works behind the `past`, clean chunks.
    """

    untouched: UntouchedComponent
    window: KeyValueWindow | None = None
    past: Sequence[Array] = ()
    velocities: list[Array] = field(default_factory=list[Array])

    def run_branches(self, graph: str, given: Mapping[str, Mapping[str, Array]]) -> Sequence[Mapping[str, Value]]:
        del graph
        self.velocities = [self._velocity(inputs) for inputs in given.values()]
        return [as_values({"velocity": velocity}) for velocity in self.velocities]

    def _velocity(self, inputs: Mapping[str, Array]) -> Array:
        if self.window is None:
            return self.untouched.run(inputs)["velocity"]
        return self.untouched.run_behind(inputs, self.past, self.window)


@dataclass(frozen=True)
class Sampled:
    """Latents before every step and behind the last, [steps + 1, 1, …]; the velocity of each branch at each step, the
    conditional one first, [steps, branches, 1, …]; and the guided ones, [steps, 1, …]. All float32.

    Of a causal model those of all chunks, side by side in time, each at that step of its own.
    """

    latents: Array
    velocities: Sequence[Array]
    guided: Array

    @classmethod
    def joined(cls, chunks: Sequence[Sampled]) -> Sampled:
        velocities = zip(*(one.velocities for one in chunks), strict=True)
        return cls(
            np.concatenate([one.latents for one in chunks], axis=IN_TIME),
            [np.concatenate(of_step, axis=IN_TIME) for of_step in velocities],
            np.concatenate([one.guided for one in chunks], axis=IN_TIME),
        )


@dataclass(frozen=True)
class Sampler:
    """Samples with a recipe's experts; `model` has its boundary. A causal model's video is made as `cache` divides it.

    What a model makes at once is one chunk.
    """

    trajectory: Trajectory
    model: Model
    denoisers: Mapping[str, UntouchedDenoiser]
    cache: CacheFacts | None = None

    @property
    def timesteps(self) -> list[float]:
        return self.trajectory.create_solver().timesteps.tolist()

    def expert_at(self, timestep: float) -> Expert:
        component = self.model.component_at(timestep)
        return Expert(component, self.trajectory.guidance(component))

    def noise(self, shape: tuple[int, ...], seed: int) -> Array:
        """What the runtime begins a video with, float32 [1, channels, frames, height, width]."""
        return noise_of_video(shape, seed, self.cache)

    def run(
        self, noise: Array, seed: int, text: Array, negative: Array, at_step: AtStep = lambda _: nullcontext()
    ) -> Sampled:
        """A whole run, from noise [1, channels, frames, height, width] and text states [1, tokens, width]; the seed is
        that of what a solver adds behind a step.

        A step is made within what `at_step` gives for it. Raises CheckpointError where values are not finite.
        """
        found: list[Sampled] = []
        for number, chunk in enumerate(self._chunks(noise)):
            self._look_back([one.latents[-1] for one in found])
            found.append(self._chunk(number, chunk, seed, (text, negative), at_step))
        return Sampled.joined(found)

    def _chunk(self, number: int, noise: Array, seed: int, texts: tuple[Array, Array], at_step: AtStep) -> Sampled:
        def added(step: int, shape: tuple[int, ...]) -> Array:
            return initial_noise(shape, seed, stream=chunk_stream(number, step))

        solver = self.trajectory.create_solver(added)
        before = 0 if self.cache is None else number * self.cache.chunk
        latents, velocities, guided = [noise], list[Array](), list[Array]()
        for step, timestep in enumerate(solver.timesteps.tolist()):
            expert = self.expert_at(timestep)
            with at_step(StepPlace(step, expert.component, before, noise.shape[2])):
                guided.append(self._velocity(latents[-1], timestep, texts))
            velocities.append(np.stack(self.denoisers[expert.component].velocities))
            latents.append(solver.step(guided[-1], latents[-1]))
            if not np.isfinite(latents[-1]).all():
                raise CheckpointError(f"{expert.component}: the latents are not finite behind timestep {timestep:g}")
        return Sampled(np.stack(latents), velocities, np.stack(guided))

    def guided_at(self, run: Sampled, step: int, text: Array, negative: Array) -> Array:
        """The guided velocity at a step of a run, in each chunk behind the clean ones of that run."""
        clean, timestep, found = self._chunks(run.latents[-1]), self.timesteps[step], list[Array]()
        for number, chunk in enumerate(self._chunks(run.latents[step])):
            self._look_back(clean[:number])
            found.append(self._velocity(chunk, timestep, (text, negative)))
        return np.concatenate(found, axis=2)

    def _chunks(self, latents: Array) -> list[Array]:
        if self.cache is None:
            return [latents]
        ends = np.cumsum(self.cache.lengths(latents.shape[2]))
        return [np.ascontiguousarray(chunk) for chunk in np.split(latents, ends[:-1], axis=2)]

    def _look_back(self, past: Sequence[Array]) -> None:
        for denoiser in self.denoisers.values():
            denoiser.past = past

    def _velocity(self, latents: Array, timestep: float, texts: tuple[Array, Array]) -> Array:
        """The guided velocity in one place."""
        expert = self.expert_at(timestep)
        return expert.velocity(self.denoisers[expert.component], latents, timestep, *texts).copy()


class BlockRows:
    """Rows of the residual stream behind every block of an expert, float32 [rows, width], where they are asked for.

    They are of the chunk that is made, and not of those before it.
    """

    def __init__(self, untouched: UntouchedComponent) -> None:
        blocks = cast(Any, untouched.module).blocks
        self._count, self._rows = len(blocks), list[Array]()
        self._missing, self._past = 0, 0.0
        for block in blocks:
            block.register_forward_hook(self._keep)

    def begin(self, place: StepPlace) -> None:
        """Those of the next execution are kept."""
        self._rows, self._missing = [], self._count
        self._past = place.before / (place.before + place.frames)

    def taken(self) -> Array:
        """[blocks, rows, width]."""
        return np.stack(self._rows)

    def _keep(self, _part: object, _inputs: object, states: torch.Tensor) -> None:
        if self._missing:
            self._missing -= 1
            past = round(self._past * states.shape[1])
            self._rows.append(rows_of(states[:, past:].numpy()))


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
