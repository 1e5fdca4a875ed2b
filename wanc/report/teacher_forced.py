"""A bundle at the reference's own states: what it makes of each of them, step by step and block by block.

No error of one step goes into the next, so that a small fault shows as what it is, where it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from wanc.report.document import BlockError, Branch, StepError
from wanc.report.reference import ReferenceClip, ReferenceRecord
from wanc.report.statistics import relative_error
from wanc.report.subject import Subject
from wanc.report.taps import Tapped
from wanc.runtime.denoise import GRAPH, TIMESTEP
from wanc.runtime.parts import Parts
from wanc.runtime.pipeline import Pipeline

Array = np.ndarray[Any, Any]
BRANCHES: tuple[Branch, ...] = ("conditional", "unconditional")
Advance = Callable[[], object]
ROWS = 64
"""Of the tokens behind a block, as many are compared, evenly spaced; see `compiler.reference.sampling`."""


@dataclass(frozen=True)
class Velocities:
    """Errors of velocities: by step, expert and branch, one for each clip."""

    timesteps: Sequence[float]
    errors: Mapping[tuple[int, str, Branch], Sequence[float]]

    @property
    def by_clip(self) -> list[float]:
        """Of each clip the mean over the steps' guided velocities."""
        guided = [errors for (_, _, branch), errors in self.errors.items() if branch == "guided"]
        return [float(np.mean(errors)) for errors in zip(*guided, strict=True)]

    @property
    def steps(self) -> list[StepError]:
        return [
            StepError(
                step=step, timestep=self.timesteps[step], expert=expert, branch=branch, error=float(np.mean(errors))
            )
            for (step, expert, branch), errors in self.errors.items()
        ]


def velocities(pipeline: Pipeline, record: ReferenceRecord, advance: Advance) -> Velocities:
    """What the bundle makes of every state of the reference; `advance` is told of each clip.

    Each step is made by the expert, and with the guidance, that the bundle has for its timestep.
    """
    found: dict[tuple[int, str, Branch], list[float]] = defaultdict(list)
    for clip in record.clips:
        text, negative = clip.texts
        parts = cache(pipeline.parts)  # what they make of a prompt is good for all steps of its clip
        for step, timestep in enumerate(record.timesteps):
            expert = pipeline.expert_at(timestep)
            gave = expert.velocities(parts(expert.component), clip.latents[step], timestep, text, negative)
            for branch, velocity, wanted in zip(BRANCHES, gave, clip.velocities(step), strict=False):
                found[step, expert.component, branch].append(relative_error(velocity, wanted))
            guided = relative_error(expert.guided(gave), clip.guided[step])
            found[step, expert.component, "guided"].append(guided)
        advance()
    return Velocities(record.timesteps, found)


def block_errors(subject: Subject, record: ReferenceRecord) -> list[BlockError]:
    """The error of the residual stream behind each block, mean over clips, at the steps that the reference has it for.

    Nothing where a bundle's EngineReport does not say what goes from block to block, or its engines do not have that.
    """
    found: dict[tuple[int, str, int], list[float]] = defaultdict(list)
    pipeline = subject.pipeline
    for component, ends in subject.block_ends.items():
        tapped = Tapped(pipeline.bundle, component, GRAPH, ends, pipeline.bundle.threads)
        for clip in record.clips:
            parts = pipeline.parts(component)
            for step in record.tapped:
                if pipeline.expert_at(record.timesteps[step]).component != component:
                    continue
                values = tapped.run(_inputs(parts, clip, step, record.timesteps[step]))
                for block, name in enumerate(ends):
                    if name not in tapped.missing:
                        error = relative_error(_rows(values[name]), clip.blocks(step)[block])
                        found[step, component, block].append(error)
    return [
        BlockError(step=step, expert=expert, block=block, error=float(np.mean(errors)))
        for (step, expert, block), errors in found.items()
    ]


def _inputs(parts: Parts, clip: ReferenceClip, step: int, timestep: float) -> Mapping[str, Any]:
    """All that the graph takes for the conditional branch."""
    given = {"latents": clip.latents[step], TIMESTEP: np.array([timestep], np.float32), "text": clip.texts[0]}
    return parts.inputs(GRAPH, given, "conditional")


def _rows(states: Array) -> Array:
    """Some tokens of [1, tokens, width], evenly spaced: [rows, width]."""
    tokens = states.shape[-2]
    chosen = np.linspace(0, tokens - 1, min(ROWS, tokens)).astype(int)
    return states.reshape(tokens, -1)[chosen]
