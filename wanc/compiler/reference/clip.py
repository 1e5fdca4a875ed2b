"""One clip of the reference: the untouched model's run, and those of its selves that are one place off."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from wanc.compiler.program.program import Program
from wanc.compiler.quantize.texts import prompt_reader
from wanc.compiler.reference.last_place import Unit, one_place_off
from wanc.compiler.reference.sampling import (
    BlockRows,
    Sampled,
    Sampler,
    StepPlace,
    UntouchedDenoiser,
    pictures,
    tapped_steps,
)
from wanc.compiler.stages.stage import Files
from wanc.models.wan.checkpoint import open_located
from wanc.models.wan.untouched import UntouchedComponent
from wanc.runtime.encode import text_states
from wanc.runtime.model import DECODER, HIGH, LOW, TEXT_ENCODER
from wanc.runtime.value import as_values

if TYPE_CHECKING:
    from wanc.compiler.reference.stage import SampleReference

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ClipMaker:
    """The untouched model, ready to sample as a stage says."""

    stage: SampleReference
    program: Program
    source: Files
    untouched: Mapping[str, UntouchedComponent]

    @classmethod
    def of(cls, stage: SampleReference, program: Program, source: Files) -> ClipMaker:
        """Raises CheckpointError where the libraries do not take the checkpoint."""
        checkpoint = open_located(source, stage.components)
        return cls(stage, program, source, {name: UntouchedComponent(checkpoint, name) for name in stage.components})

    @property
    def changes(self) -> list[tuple[Unit, int]]:
        """The changes in the last place: of which format, and which of them."""
        return [(unit, draw) for unit in get_args(Unit) for draw in range(self.stage.draws)]

    @property
    def described(self) -> dict[str, Any]:
        """What is the same for all clips, as JSON."""
        return {
            "timesteps": self._sampler.timesteps,
            "experts": self._experts,
            "tapped": list(self._tapped),
            "changes": [[unit, draw] for unit, draw in self.changes],
            "chunks": self.stage.cache
            and {
                "chunk": self.stage.cache.chunk,
                "window": self.stage.cache.window.recent,
                "sink": self.stage.cache.window.sink,
            },
        }

    def make(self, prompt: str, seed: int, advance: Callable[[], object]) -> dict[str, Array]:
        """Arrays by name, float32 unless said otherwise.

        - `text`, `negative`: text states [1, tokens, width]; `latents` [steps + 1, 1, …], `guided` [steps, 1, …], and
          `velocity/<step>` [branches, 1, …], the conditional branch first;
        - `blocks/<step>` [blocks, rows, width]: rows of the residual stream, conditional, at the tapped steps;
        - `frames`: uint8 [frames, height, width, 3];
        - of each change: `<unit>/<draw>/latents` and `<unit>/<draw>/frames` of its own run, and
          `<unit>/<draw>/guided` [tapped steps, 1, …], velocities at the unchanged run's states.

        Of a causal model all of these hold its chunks side by side in time, each at that step of its own; blocks are of
        the last chunk.
        """
        text, negative = self._texts(prompt), self._texts(self.stage.negative_prompt)
        height, width, frames = self.stage.size
        noise = self._sampler.noise(self._model.latent_shape(height=height, width=width, frames=frames), seed)
        run, blocks = self._watched(noise, seed, text, negative)
        found = {
            "text": text,
            "negative": negative,
            "latents": run.latents,
            "guided": run.guided,
            **{f"velocity/{step}": velocity for step, velocity in enumerate(run.velocities)},
            **{f"blocks/{step}": rows for step, rows in blocks.items()},
            "frames": self._pictures(run),
        }
        advance()
        for unit, draw in self.changes:
            changed = self._changed(unit, draw, run, seed, text, negative)
            found |= {f"{unit}/{draw}/{name}": array for name, array in changed.items()}
            advance()
        return found

    def _changed(
        self, unit: Unit, draw: int, run: Sampled, seed: int, text: Array, negative: Array
    ) -> dict[str, Array]:
        """What a change of the model does to a run of it."""
        with ExitStack() as stack:
            for expert in set(self._experts):
                stack.enter_context(one_place_off(self.untouched[expert].module, unit, draw))
            changed = self._sampler.run(run.latents[0], seed, text, negative)
            guided = np.stack([self._sampler.guided_at(run, step, text, negative) for step in self._tapped])
        return {"latents": changed.latents, "guided": guided, "frames": self._pictures(changed)}

    @cached_property
    def _model(self) -> Any:
        assert self.program.model is not None
        return replace(self.program.model, boundary=self.stage.trajectory.boundary)

    @cached_property
    def _sampler(self) -> Sampler:
        cache = self.stage.cache
        denoisers = {
            name: UntouchedDenoiser(self.untouched[name], cache and cache.window)
            for name in (HIGH, LOW)
            if name in self.untouched
        }
        return Sampler(self.stage.trajectory, self._model, denoisers, cache)

    @cached_property
    def _blocks(self) -> dict[str, BlockRows]:
        return {name: BlockRows(self.untouched[name]) for name in set(self._experts)}

    @property
    def _experts(self) -> list[str]:
        return [self._model.component_at(timestep) for timestep in self._sampler.timesteps]

    @property
    def _tapped(self) -> list[int]:
        return list(tapped_steps(self._experts))

    def _watched(self, noise: Array, seed: int, text: Array, negative: Array) -> tuple[Sampled, dict[int, Array]]:
        """A run, and by step what was alive behind each block; of a causal model as it made the last chunk."""
        blocks: dict[int, Array] = {}

        @contextmanager
        def at_step(place: StepPlace) -> Generator[None]:
            if place.step in self._tapped:
                self._blocks[place.expert].begin(place)
            yield
            if place.step in self._tapped:
                blocks[place.step] = self._blocks[place.expert].taken()

        return self._sampler.run(noise, seed, text, negative, at_step), blocks

    def _texts(self, prompt: str) -> Array:
        assert self.program.model is not None
        inputs = prompt_reader(self.program, self.source, self.stage.tokenizer)(prompt)
        gave = self.untouched[TEXT_ENCODER].run(inputs)
        return text_states(as_values(gave), inputs, self.program.model.text_length).copy()

    def _pictures(self, run: Sampled) -> Array:
        return pictures(self.untouched[DECODER], self._model, run.latents[-1])
