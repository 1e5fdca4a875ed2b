"""Requests to a causal model: their videos are made chunk by chunk, and the prompt may change on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .cache_facts import CacheFacts
from .causal import CausalModel, CausalVideo, Latents, Texts, chunks_of
from .denoise import Expert
from .errors import TargetError, UserError
from .executor import Executor
from .model import HIGH, LOW
from .noise import chunk_stream, initial_noise
from .parts import Parts
from .progress import OnProgress, ignore
from .prompts import require_readable
from .request import Request
from .session_bytes import SessionBytes, session_bytes
from .solvers.base import NoiseOf, Solver
from .timer import Timer
from .video_bundle import Shape, VideoBundle


@dataclass(frozen=True)
class CausalRequests:
    """What a pipeline does with a request to a causal model.

    `states_of` makes text states of a prompt, `noise_of` and `solver_of` what a request begins with and goes by;
    `expert_at` and `parts_of` are as `CausalModel` has them. Raises UserError for a bundle of another model.
    """

    bundle: VideoBundle
    executor: Executor
    states_of: Callable[[str], Latents]
    noise_of: Callable[[Request, Shape], Latents]
    solver_of: Callable[[Request, NoiseOf | None], Solver]
    expert_at: Callable[[float], Expert]
    parts_of: Callable[[str], Parts]

    def __post_init__(self) -> None:
        if self.bundle.cache is None:
            raise UserError(
                "this bundle's model makes a video at once", hint="only causal models make it chunk by chunk"
            )

    @property
    def facts(self) -> CacheFacts:
        """How its videos are divided, and what is kept of them."""
        assert self.bundle.cache is not None
        return self.bundle.cache

    @property
    def experts(self) -> list[Expert]:
        """All that there are, each with its guidance."""
        sampling, two = self.bundle.sampling, self.bundle.model.boundary is not None
        return [Expert(HIGH, sampling.guidance_high), *([Expert(LOW, sampling.guidance_low)] if two else [])]

    def session_bytes(self, shape: Shape) -> SessionBytes:
        """What a video of this size keeps until it ends, however long it is."""
        return self._bytes(shape, self.facts)

    def _bytes(self, shape: Shape, facts: CacheFacts) -> SessionBytes:
        return session_bytes(facts, self.experts, self.bundle.interfaces, self.bundle.latent_shape(shape)[3:])

    def check_room(self, shape: Shape) -> None:
        """Raises TargetError where what such a video keeps finds no room, even if there is no other one."""
        needed, room = sum(self.session_bytes(shape).values()), self.executor.residency.room
        if room is None or needed <= room:
            return
        raise TargetError(
            f"a video of {shape.width}x{shape.height} keeps {needed:,} bytes of finished chunks and of its prompt, "
            f"and there are {room:,}: {needed - room:,} are missing",
            hint=self._what_fits(shape, room),
        )

    def _what_fits(self, shape: Shape, room: int) -> str:
        """What to do instead: another shape of the bundle, or a cache of another size."""
        smaller = {other.name: sum(self.session_bytes(other).values()) for other in self.bundle.shapes}
        name = max((name for name, size in smaller.items() if size <= room), key=smaller.__getitem__, default=None)
        if name is not None:
            return f"ask for the shape {name}, which keeps {smaller[name]:,}"
        for recent in range(self.facts.window.recent - 1, 0, -1):
            facts = replace(self.facts, window=replace(self.facts.window, recent=recent))
            if (size := sum(self._bytes(shape, facts).values())) <= room:
                return f"build it with runtime.kv_cache.window: {recent}, with which it keeps {size:,}"
        return "build it for smaller videos, or with another runtime.kv_cache.precision"

    def video(self, request: Request, texts: Texts) -> CausalVideo:
        """A video that is made chunk by chunk: several may be on their way. Raises UserError."""
        shape = self.bundle.shape(request.shape, request.frames)
        size, empty, chunk_frames = self.bundle.latent_shape(shape), self.executor.empty, self.facts.chunk
        given = None if request.latents is None else self.noise_of(request, shape)

        def noise_of(chunk: int, frames: int) -> Latents:
            if given is not None:
                return np.ascontiguousarray(given[:, :, chunk * chunk_frames : chunk * chunk_frames + frames])
            return initial_noise((*size[:2], frames, *size[3:]), request.seed, empty, stream=chunk_stream(chunk))

        def solver_of(chunk: int) -> Solver:
            def again(step: int, shape: tuple[int, ...]) -> Latents:
                return initial_noise(shape, request.seed, empty, stream=chunk_stream(chunk, step))

            return self.solver_of(request, again)

        model = CausalModel(self.facts, self.experts, self.expert_at, self.parts_of, empty)
        return CausalVideo(model, texts, noise_of, solver_of)

    def chunks(
        self, request: Request, texts: Texts, timer: Timer, on_progress: OnProgress = ignore
    ) -> Iterator[Latents]:
        """The clean latents of each chunk in turn. Raises TargetError."""
        frames = latent_frames(self.bundle, request)
        video, changes = self.video(request, texts), changes_of(self.bundle, request)
        made = chunks_of(video, frames, on_progress)
        for number, _ in enumerate(self.facts.lengths(frames)):
            if number in changes:
                with timer.phase("text"):
                    text = self.states_of(changes[number])
                negative = texts[1] if self.bundle.sampling.is_guided else text
                video.say((text, negative), renew=request.memory == "renew")
            with timer.phase("denoise"):
                chunk = next(made)
            yield chunk


def latent_frames(bundle: VideoBundle, request: Request) -> int:
    """How many a video of this request has. Raises UserError."""
    return bundle.latent_shape(bundle.shape(request.shape, request.frames))[2]


def changes_of(bundle: VideoBundle, request: Request) -> Mapping[int, str]:
    """Further prompts by chunk. Raises UserError where the video has no such chunk."""
    changes = request.changes or {}
    if changes and bundle.cache is None:
        raise UserError(
            "the prompt cannot change: this bundle's model makes all frames of a video at once",
            hint="leave changes out, or build a causal model",
        )
    if changes and bundle.cache is not None:
        count = len(bundle.cache.lengths(latent_frames(bundle, request)))
        if max(changes) >= count:
            raise UserError(f"the prompt changes at chunk {max(changes)}, and the video has {count}, from 0 on")
    for chunk, text in changes.items():
        require_readable(f"prompt from chunk {chunk} on", text)
    return changes
