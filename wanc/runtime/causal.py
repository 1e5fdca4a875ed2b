"""A causal video on its way: chunk by chunk from noise to clean latents, each beside what finished ones have left.

For each chunk the denoising loop is gone through; then a clean pass at timestep 0 leaves the chunk's keys and values in
the rings, those of every expert, because each expert looks back at its own. Noisy passes leave nothing.
Frames have positions in the video, or in what is in sight: those do not grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .cache_facts import CLEAN, NEW, PAST, CacheFacts, left_by_a_chunk
from .denoise import GRAPH as STEP
from .denoise import Denoiser, Expert, denoise, given_to_branches
from .errors import BundleError, UserError
from .interface import Interface
from .kvcache import KeyValueRing
from .parts import Parts
from .pool import Empty
from .progress import OnProgress, ignore
from .solvers.base import Solver
from .value import Given

Latents = NDArray[np.float32]
Texts = tuple[Latents, Latents]
BASE = 10000.0
"""Of the wave lengths by which positions are told apart, as Wan has it."""


class CausalParts(Denoiser, Protocol):
    """What executes a causal expert, and says what its graphs take and give."""

    @property
    def graphs(self) -> Mapping[str, Interface]: ...


@dataclass(frozen=True)
class CausalModel:
    """What makes chunks: an expert for each timestep, the graphs of each expert, and what is kept of the past.

    `experts` are all that there are, each with its guidance.
    """

    facts: CacheFacts
    experts: Sequence[Expert]
    expert_at: Callable[[float], Expert]
    parts_of: Callable[[str], CausalParts]
    empty: Empty = np.empty


@dataclass
class CausalVideo:
    """One video. Nothing of it is shared with another: several may be made in turn, chunk by chunk.

    `noise_of` gives what a chunk begins with, float32 [1, channels, frames, height, width], by its number and its
    frames, and `solver_of` a fresh solver for it.
    """

    model: CausalModel
    texts: Texts
    noise_of: Callable[[int, int], Latents]
    solver_of: Callable[[int], Solver]
    done: int = 0
    """Chunks that are finished."""
    _rings: dict[tuple[str, str], KeyValueRing] = field(default_factory=dict[Any, KeyValueRing])
    _parts: dict[str, CausalParts] = field(default_factory=dict[str, Any])
    _frames: int = 0
    _seen: dict[int, tuple[int, Latents]] = field(default_factory=dict[int, tuple[int, Latents]])
    """Finished chunks that are in sight, by their numbers: where they begin, and what they are."""

    @property
    def cache_bytes(self) -> int:
        """What its rings take, all of them."""
        return sum(ring.bytes for ring in self._rings.values())

    def make(
        self,
        frames: int,
        on_progress: OnProgress = ignore,
        on_latents: Callable[[Latents], object] = lambda _: None,
        *,
        is_last: bool = False,
    ) -> Latents:
        """The clean latents of the next chunk, float32 [1, channels, frames, height, width].

        `on_latents` is told of those behind each step. Behind the last chunk nothing is kept. Raises TargetError.
        """
        noise = self.noise_of(self.done, frames)
        passing = self.positions(noise, self.done)  # the same for noisy passes and the clean one
        latents = denoise(
            partial(SeeingParts, self, passing), self.solver_of(self.done), self.model.expert_at, noise, *self.texts,
            on_progress, self.model.empty, on_latents,
        )  # fmt: skip
        if is_last:
            self.done, self._frames = self.done + 1, self._frames + frames
        else:
            self._keep(latents, passing)
        return latents

    def seeing(self, latents: Latents) -> Callable[[str], SeeingParts]:
        """The parts of each expert, by its component, as they work on the next chunk, of the size of these latents."""
        return partial(SeeingParts, self, self.positions(latents, self.done))

    def keep(self, latents: Latents) -> None:
        """The next chunk is these latents, and later ones look back at it. Raises TargetError."""
        self._keep(latents, self.positions(latents, self.done))

    def _keep(self, latents: Latents, passing: Mapping[str, NDArray[Any]]) -> None:
        frames = latents.shape[2]
        self._finish(latents, passing, self.done)
        self._seen[self.done] = self._frames, latents
        in_sight = self.model.facts.window.seen(self.done + 1)
        self._seen = {chunk: entry for chunk, entry in self._seen.items() if chunk in in_sight}
        self.done, self._frames = self.done + 1, self._frames + frames

    def say(self, texts: Texts, *, renew: bool = False) -> None:
        """From the next chunk on it is of other texts. What is finished stays in sight as it was made, or is computed
        again, as if it had been of these texts. Raises TargetError.
        """
        self.texts = texts
        self._parts.clear()
        if renew:
            for ring in self._rings.values():
                ring.clear()
            for chunk, (_, latents) in self._seen.items():
                self._finish(latents, self.positions(latents, chunk), chunk)

    def parts(self, component: str) -> CausalParts:
        """The graphs of an expert, with what they keep for this video."""
        if component not in self._parts:
            self._parts[component] = self.model.parts_of(component)
        return self._parts[component]

    def ring(self, component: str, branch: str, latents: Latents) -> KeyValueRing:
        """What one branch of an expert has left. Raises UserError."""
        if (component, branch) not in self._rings:
            facts = self.model.facts
            try:
                shapes = self._left_by_a_chunk(component, latents)
                ring = KeyValueRing(facts.window, shapes, self.model.empty, facts.precision)
            except MemoryError:
                hint = "take a smaller shape, or build it with a smaller window, or another cache precision"
                raise UserError("the keys and values of finished chunks find no room in memory", hint=hint) from None
            self._rings[component, branch] = ring
        return self._rings[component, branch]

    def _finish(self, latents: Latents, passing: Mapping[str, NDArray[Any]], chunk: int) -> None:
        """The clean pass of every expert, and of every branch of it, over a chunk by its number."""
        for expert in self.model.experts:
            given = given_to_branches(expert, latents, CLEAN, *self.texts)
            results = SeeingParts(self, passing, expert.component).run_branches(STEP, given)
            for branch, left in zip(given, results, strict=True):
                ring = self.ring(expert.component, branch, latents)
                new = {name: value.numpy() for name, value in left.items() if name.startswith(NEW)}
                ring.finish(chunk, {PAST + name.removeprefix(NEW): array for name, array in new.items()})

    def positions(self, latents: Latents, chunk: int) -> dict[str, NDArray[np.float32]]:
        """The rotations of the frames of a chunk, one in sight or the next one, float32 [frames, pairs of channels]; if
        positions are relative also those of its past, [past, pairs]. They are computed, not looked up: there is no last
        one.
        """
        first, _ = self._seen.get(chunk, (self._frames, latents))
        behind = [other for other in self._seen if other < chunk]
        facts, component = self.model.facts, self.model.experts[0].component
        frames, pairs = np.arange(latents.shape[2]), self._pairs(component)
        if not facts.is_relative:
            return _turned("frame", first + frames, pairs)
        tokens = next(iter(self._left_by_a_chunk(component, latents).values()))[1]
        past = np.add.outer(facts.chunk * np.array(facts.window.places(behind)), np.arange(facts.chunk))
        of_tokens = past.reshape(-1).repeat(tokens // facts.chunk)
        return _turned("frame", facts.chunk * len(behind) + frames, pairs) | _turned("past", of_tokens, pairs)

    def _left_by_a_chunk(self, component: str, latents: Latents) -> dict[str, tuple[int, int, int, int]]:
        return left_by_a_chunk(self.parts(component).graphs[STEP], self.model.facts.chunk, latents.shape[3:])

    def _pairs(self, component: str) -> int:
        """Pairs of channels that stand for time."""
        inputs = [entry for graph in self.parts(component).graphs.values() for entry in graph.inputs]
        (pairs,) = {entry.shape[1] for entry in inputs if entry.name == "frame_cos"}
        if not isinstance(pairs, int):
            raise BundleError("a graph of a causal expert does not say how many channels stand for time")
        return pairs


def _turned(what: str, places: NDArray[np.int64], pairs: int) -> dict[str, NDArray[np.float32]]:
    angles = np.outer(places, BASE ** (-np.arange(pairs, dtype=np.float64) / pairs))
    return {f"{what}_cos": np.cos(angles).astype(np.float32), f"{what}_sin": np.sin(angles).astype(np.float32)}


@dataclass
class SeeingParts:
    """An expert's parts, with the past of each branch beside what the loop gives."""

    video: CausalVideo
    passing: Mapping[str, NDArray[Any]]
    component: str

    def run_branches(self, graph: str, given: Mapping[str, Mapping[str, NDArray[Any]]]) -> Sequence[Mapping[str, Any]]:
        seeing = {branch: self._seen(arrays, branch) for branch, arrays in given.items()}
        return self.video.parts(self.component).run_branches(graph, seeing)

    def inputs(self, graph: str, given: Mapping[str, NDArray[Any]], branch: str) -> dict[str, Given]:
        """All that a graph of a bundle takes."""
        parts = cast(Parts, self.video.parts(self.component))
        return parts.inputs(graph, self._seen(given, branch), branch)

    def _seen(self, arrays: Mapping[str, NDArray[Any]], branch: str) -> dict[str, NDArray[Any]]:
        ring = self.video.ring(self.component, branch, arrays["latents"])
        return {**arrays, **self.passing, **ring.inputs()}


def chunks_of(video: CausalVideo, frames: int, on_progress: OnProgress = ignore) -> Iterator[Latents]:
    """The clean latents of a whole video, chunk by chunk; progress counts the steps of all of them."""
    lengths = video.model.facts.lengths(frames)
    for index, length in enumerate(lengths):

        def told(phase: str, done: int, steps: int, index: int = index) -> None:
            on_progress(phase, index * steps + done, len(lengths) * steps)

        yield video.make(length, told, is_last=index == len(lengths) - 1)
