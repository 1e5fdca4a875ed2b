"""What is asked of a component where two builds are compared, and how it is executed: as a stage of a build has left
it, and as a bundle has it, both as the runtime does it.

Each is given what the reference gave it, so that what is wrong in one component does not go into the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wanc.report.quality import velocity_floor
from wanc.report.reference import ReferenceRecord
from wanc.report.subject import Subject
from wanc.runtime.decode import Runs, decoded
from wanc.runtime.denoise import GRAPH, TIMESTEP, Expert
from wanc.runtime.encode import encoder_inputs, text_states
from wanc.runtime.interface import Interface
from wanc.runtime.model import DECODER, ENCODE, TEXT_ENCODER, Model
from wanc.runtime.pool import Empty
from wanc.runtime.text_bundle import open_text
from wanc.runtime.value import Given, Value, as_array, as_values

Array = np.ndarray[Any, Any]
LEAST, FLOORS = 1e-5, 10.0
"""Two results are the same where they differ by no more than float32 products do that are added up otherwise: so much,
or, of velocities, so many times what a change in the last place of the reference does.
"""


class StageGraph(Protocol):
    """A graph that a stage has left, ready to be executed."""

    def run(self, inputs: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Its outputs for each of some inputs."""
        ...

    def run_once(self, inputs: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """The same, where it is executed no more: less lies on the disk at a time."""
        ...


class StageResult(Protocol):
    """A component as one stage of a build has left it: see `compiler.built_stages`."""

    @property
    def stage(self) -> str: ...
    @property
    def told(self) -> Mapping[str, Any]:
        """What the stage was told, by name."""
        ...

    @property
    def digests(self) -> Mapping[str, str]:
        """Of its files."""
        ...

    @property
    def interfaces(self) -> Mapping[str, Interface]:
        """Of its graphs."""
        ...

    def graph(self, name: str, folder: Path) -> StageGraph:
        """One of its graphs; `folder` is made, and may be written to."""
        ...


class ComponentCase(Protocol):
    """What is asked of a component: what is `expected` are one or more arrays, of which those of others are compared.

    Two that differ by no more than `noise` compute the same.
    """

    @property
    def component(self) -> str: ...
    @property
    def noise(self) -> float: ...
    @property
    def expected(self) -> Sequence[Array]: ...

    def of_stage(self, stage: StageResult, folder: Path) -> list[Array]:
        """What the component gives as a stage has left it; `folder` is made, and may be written to."""
        ...

    def of_bundle(self, subject: Subject) -> list[Array]:
        """What a bundle's own engines give."""
        ...


def component_cases(record: ReferenceRecord, new: Subject, baseline: Subject) -> Iterator[ComponentCase]:
    """Those of all components of two bundles, in the order in which they work.

    All are of the reference's first clip. Its prompt is read with the tokenizer and the embedding of the baseline.
    """
    clip, model = record.clips[0], baseline.pipeline.bundle.model
    inputs = encoder_inputs(clip.prompt, *open_text(baseline.pipeline.bundle))
    yield TextCase(clip.prompt, inputs, model.text_length, [clip.texts[0]])
    noise = max(LEAST, FLOORS * (velocity_floor(record, "fp32") or 0.0))
    for component in dict.fromkeys(record.experts):
        yield DenoiserCase.of(record, component, noise)
    yield DecoderCase.of(clip.latents[-1], clip.frames, model, [new, baseline])


@dataclass(frozen=True)
class TextCase:
    """The text states of a prompt, of which a stage's graph is given the `inputs`."""

    prompt: str
    inputs: Mapping[str, Array]
    text_length: int
    expected: Sequence[Array]
    component: str = TEXT_ENCODER
    noise: float = LEAST

    def of_stage(self, stage: StageResult, folder: Path) -> list[Array]:
        (outputs,) = stage.graph(ENCODE, folder).run_once([self.inputs])
        return [text_states(as_values(outputs), self.inputs, self.text_length)]

    def of_bundle(self, subject: Subject) -> list[Array]:
        return [subject.pipeline.text_states(self.prompt)]


@dataclass(frozen=True)
class DenoiserCase:
    """The conditional velocities of an expert, at its own steps that the reference has looked into."""

    component: str
    noise: float
    inputs: Sequence[Mapping[str, Array]]
    expected: Sequence[Array]

    @classmethod
    def of(cls, record: ReferenceRecord, component: str, noise: float) -> DenoiserCase:
        clip, steps = record.clips[0], [step for step in record.tapped if record.experts[step] == component]
        inputs = [
            {
                "latents": clip.latents[step],
                TIMESTEP: np.array([record.timesteps[step]], np.float32),
                "text": clip.texts[0],
            }
            for step in steps
        ]
        return cls(component, noise, inputs, [clip.velocities(step)[0] for step in steps])

    def of_stage(self, stage: StageResult, folder: Path) -> list[Array]:
        return [outputs["velocity"] for outputs in stage.graph(GRAPH, folder).run_once(self.inputs)]

    def of_bundle(self, subject: Subject) -> list[Array]:
        parts = subject.pipeline.parts(self.component)
        unguided = Expert(self.component, guidance=1.0)
        return [
            unguided.velocity(parts, given["latents"], float(given[TIMESTEP][0]), given["text"], given["text"])
            for given in self.inputs
        ]


@dataclass(frozen=True)
class DecoderCase:
    """The frames of `latents`, those of each latent frame by themselves: float32 [1, 3, frames, height, width].

    Compared is what is seen of them, -1 to 1, before it is rounded; what is expected was rounded to 255 steps.
    """

    latents: Array
    model: Model
    expected: Sequence[Array]
    component: str = DECODER
    noise: float = LEAST

    @classmethod
    def of(cls, latents: Array, frames: Array, model: Model, subjects: Sequence[Subject]) -> DecoderCase:
        """Where one of the bundles decodes pictures in tiles, it is asked for the first tile, which all can decode."""
        size = frames.shape[1:3]
        tilings = [subject.pipeline.bundle.tiling(*size) for subject in subjects]
        height, width = map(min, zip(size, *(tiling.tile for tiling in tilings if tiling), strict=True))
        latents = latents[..., : height // model.spatial_stride, : width // model.spatial_stride]
        seen = (frames[:, :height, :width].astype(np.float32) / 127.5 - 1).transpose(3, 0, 1, 2)[None]
        ends = range(1, seen.shape[2], model.temporal_stride)
        return cls(latents, model, np.split(seen, ends, axis=2))

    def of_stage(self, stage: StageResult, folder: Path) -> list[Array]:
        graphs = cache(lambda name: stage.graph(name, folder / name))
        return self._seen(_StageRuns(graphs), stage.interfaces)

    def of_bundle(self, subject: Subject) -> list[Array]:
        return self._seen(subject.pipeline.executor, subject.pipeline.bundle.interfaces(DECODER))

    def _seen(self, runs: Runs, graphs: Mapping[str, Interface]) -> list[Array]:
        chunks = decoded([self.latents], self.model.latent_mean, self.model.latent_std, runs, graphs)
        return [np.clip(frames, -1, 1) for frames in chunks]


@dataclass(frozen=True)
class _StageRuns:
    """In place of the runtime's executor: the graphs of one component as a stage has left them, by name."""

    graph: Callable[[str], StageGraph]

    @property
    def empty(self) -> Empty:
        return np.empty

    def run(self, component: str, graph: str, inputs: Mapping[str, Given]) -> dict[str, Value]:
        del component
        (outputs,) = self.graph(graph).run([{name: as_array(value) for name, value in inputs.items()}])
        return as_values(outputs)
