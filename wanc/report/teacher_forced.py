"""A bundle at the reference's own states: what it makes of each of them, step by step and block by block.

No error of one step goes into the next, so that a small fault shows as what it is, where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wanc.report.chunks import Chunk, PartsAt, chunks_at, last_chunk, part
from wanc.report.document import Branch, StepError
from wanc.report.reference import ReferenceClip, ReferenceRecord
from wanc.report.statistics import relative_error
from wanc.report.subject import Subject
from wanc.report.taps import Tapped, can_be_looked_into
from wanc.runtime.denoise import GRAPH, TIMESTEP
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.value import Given

Array = np.ndarray[Any, Any]
BRANCHES: tuple[Branch, ...] = ("conditional", "unconditional", "guided")
Advance = Callable[[], object]
ROWS = 64
"""Of the tokens behind a block, as many are compared, evenly spaced; see `compiler.reference.sampling`."""


@dataclass(frozen=True)
class Velocities:
    """Errors of all clips' velocities, as `velocity_errors` gives them: float64 [clips, chunks, steps, branches]."""

    timesteps: Sequence[float]
    experts: Sequence[str]
    errors: Array

    @property
    def by_clip(self) -> list[float]:
        """Of each clip the mean over the guided velocities of all steps, and of all chunks."""
        return self.guided.mean(axis=(1, 2)).tolist()

    @property
    def guided(self) -> Array:
        """float64 [clips, chunks, steps]."""
        return self.errors[..., BRANCHES.index("guided")]

    @property
    def steps(self) -> list[StepError]:
        means = self.errors.mean(axis=(0, 1))
        return [
            StepError(step=step, timestep=timestep, expert=expert, branch=branch, error=float(error))
            for step, (timestep, expert) in enumerate(zip(self.timesteps, self.experts, strict=True))
            for branch, error in zip(BRANCHES, means[step], strict=True)
            if not np.isnan(error)
        ]


def velocity_errors(pipeline: Pipeline, timesteps: Sequence[float], clip: ReferenceClip) -> Array:
    """What the bundle makes of every state of a clip, float64 [chunks, steps, branches]: NaN where a step has no such
    branch.

    Each step is made by the expert, and with the guidance, that the bundle has for its timestep.
    """
    return np.stack([_errors(pipeline, timesteps, clip, *chunk) for chunk in chunks_at(pipeline, clip)])


def _errors(
    pipeline: Pipeline,
    timesteps: Sequence[float],
    clip: ReferenceClip,
    span: slice,
    parts: Callable[[str], PartsAt],
) -> Array:
    """Of one chunk, [steps, branches]."""
    found = np.full((len(timesteps), len(BRANCHES)), np.nan)
    for step, timestep in enumerate(timesteps):
        expert = pipeline.expert_at(timestep)
        gave = expert.velocities(parts(expert.component), part(clip.latents[step], span), timestep, *clip.texts)
        for branch, (velocity, wanted) in enumerate(zip(gave, clip.velocities(step), strict=False)):
            found[step, branch] = relative_error(velocity, part(wanted, span))
        found[step, BRANCHES.index("guided")] = relative_error(expert.guided(gave), part(clip.guided[step], span))
    return found


def block_errors(subject: Subject, record: ReferenceRecord, component: str) -> Array:
    """The error of the residual stream behind each block of an expert, mean over clips: float64 [steps, blocks].

    NaN at steps that the reference does not have it for, or that are another expert's, and where a bundle's engines do
    not have what goes from block to block.
    """
    pipeline, ends = subject.pipeline, subject.block_ends[component]
    found = np.full((len(record.clips), len(record.timesteps), len(ends)), np.nan)
    steps = [step for step in record.tapped if pipeline.expert_at(record.timesteps[step]).component == component]
    if not steps or not can_be_looked_into(pipeline.bundle, component, GRAPH):
        return found.mean(axis=0)
    tapped = Tapped(pipeline.bundle, component, GRAPH, ends, pipeline.bundle.threads)
    for clip in record.clips:
        chunk = last_chunk(pipeline, clip)
        for step in steps:
            values = tapped.run(step_inputs(component, chunk, clip, step, record.timesteps[step]))
            for block, name in enumerate(ends):
                if name not in tapped.missing:
                    found[clip.number, step, block] = relative_error(_rows(values[name]), clip.blocks(step)[block])
    return found.mean(axis=0)


def step_inputs(component: str, chunk: Chunk, clip: ReferenceClip, step: int, timestep: float) -> Mapping[str, Given]:
    """All that an expert's graph takes for the conditional branch."""
    span, parts = chunk
    latents, at = part(clip.latents[step], span), np.array([timestep], np.float32)
    given = {"latents": latents, TIMESTEP: at, "text": clip.texts[0]}
    return parts(component).inputs(GRAPH, given, "conditional")


def _rows(states: Array) -> Array:
    """Some tokens of [1, tokens, width], evenly spaced: [rows, width]."""
    tokens = states.shape[-2]
    chosen = np.linspace(0, tokens - 1, min(ROWS, tokens)).astype(int)
    return states.reshape(tokens, -1)[chosen]
