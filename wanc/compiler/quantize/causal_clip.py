"""A clip of a causal model, made chunk by chunk as the runtime makes it, and the passes of it that are calibrated on.

What is kept of a pass is what it was given, but for texts, of which there are few, and keys and values, which are many,
and which the clean passes leave again. So of every chunk but the last one the clean pass is kept, in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from wanc.compiler.host.past import ChunkPass, Pasts
from wanc.compiler.stages.stage import Files
from wanc.runtime.cache_facts import CLEAN, CacheFacts
from wanc.runtime.causal import CausalParts, CausalVideo
from wanc.runtime.denoise import TIMESTEP
from wanc.runtime.interface import Interface
from wanc.runtime.safetensors import SafetensorsFile
from wanc.runtime.value import Value

Array = np.ndarray[Any, Any]
LATENTS, PROMPT, CHUNKS = "latents", "prompt", "chunks"
KEPT = (LATENTS, TIMESTEP, "frame_cos", "frame_sin", "past_cos", "past_sin")
"""Inputs of a pass that lie in a clip's file, as `<number of the pass>/<input>`: those of them that the expert has."""


def lengths_of(facts: CacheFacts, frames: int) -> list[int]:
    """The latent frames of each chunk of a clip: as long as a video of so many, and at least until the first chunk that
    no longer sees all of the past. What a video's beginning alone has seen says little of all that follows.
    """
    return facts.lengths(max(frames, facts.chunk * (facts.window.chunks + 2)))


class CausalClip(NamedTuple):
    """The passes of one expert, [(chunk, what it was given)], in their order; and all latents, clean."""

    passes: list[tuple[int, dict[str, Array]]]
    latents: Array

    @classmethod
    def of(
        cls, video: CausalVideo, lengths: Sequence[int], component: str, wanted: Sequence[Collection[float]]
    ) -> CausalClip:
        """Make a video. Kept are the component's passes at the timesteps that are `wanted` of each chunk, and the clean
        ones. Raises TargetError where values are not finite.
        """
        passes: list[tuple[int, dict[str, Array]]] = []

        def note(given: Mapping[str, Array]) -> None:
            timestep = float(given[TIMESTEP][0])
            if timestep == CLEAN or timestep in wanted[video.done]:
                passes.append((video.done, {name: np.array(given[name]) for name in KEPT if name in given}))

        parts_of = video.model.parts_of

        def heard(name: str) -> CausalParts:
            return Heard(parts_of(name), note) if name == component else parts_of(name)

        video.model = replace(video.model, parts_of=heard)
        last = len(lengths) - 1
        latents = [video.make(length, is_last=number == last) for number, length in enumerate(lengths)]
        return cls(passes, np.concatenate(latents, axis=2))

    def arrays(self, prompt: int) -> dict[str, Array]:
        """The file of the passes: `chunks`, int64 [passes], says which chunk each is over."""
        given = {
            f"{number}/{name}": array for number, (_, one) in enumerate(self.passes) for name, array in one.items()
        }
        chunks = np.array([chunk for chunk, _ in self.passes], np.int64)
        return {**given, CHUNKS: chunks, PROMPT: np.array([prompt], np.int64)}


@dataclass(frozen=True)
class Heard:
    """An expert's parts, whose passes are told of."""

    parts: CausalParts
    note: Callable[[Mapping[str, Array]], None]

    @property
    def graphs(self) -> Mapping[str, Interface]:
        return self.parts.graphs

    def run_branches(self, graph: str, given: Mapping[str, Mapping[str, Array]]) -> Sequence[Mapping[str, Value]]:
        self.note(next(iter(given.values())))  # what is kept is the same for all branches
        return self.parts.run_branches(graph, given)


def samples_of_passes(
    clips: Files, texts: Array, facts: CacheFacts, step: Interface, *, is_guided: bool
) -> tuple[list[Callable[[], dict[str, Array]]], Pasts]:
    """Every pass of every clip, for each branch of guidance, one video after the other. `texts` has rows of text
    states, of which the last one is the negative prompt's.
    """
    samples: list[Callable[[], dict[str, Array]]] = []
    passes: list[ChunkPass] = []
    for number, (_, path) in enumerate(sorted(clips.items())):
        clip = SafetensorsFile(path)
        for row in (int(clip[PROMPT][0]), *([-1] if is_guided else [])):
            for index, chunk in enumerate(clip[CHUNKS].tolist()):
                samples.append(partial(_given, clip, index, texts, row))
                is_clean = float(clip[f"{index}/{TIMESTEP}"][0]) == CLEAN
                rows, columns = clip[f"{index}/{LATENTS}"].shape[3:]
                passes.append(ChunkPass((number, row), chunk, is_clean, (rows, columns)))
    return samples, Pasts(facts, step, passes)


def _given(clip: Mapping[str, Array], index: int, texts: Array, row: int) -> dict[str, Array]:
    kept = {name: clip[stored] for name in KEPT if (stored := f"{index}/{name}") in clip}
    return {**kept, "text": texts[row][None]}
