"""The chunks of a causal model's videos: where each lies in time, and a bundle at the reference's own past.

What the reference knows of a video's chunks lies side by side in time, each at a step of its own. What a model makes at
once is one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np

from wanc.report.document import ChunkError
from wanc.report.metrics.pictures import psnr
from wanc.report.reference import ReferenceClip
from wanc.report.statistics import cosine, sqnr_db
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.denoise import Denoiser
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.value import Given

Array = np.ndarray[Any, Any]


class PartsAt(Denoiser, Protocol):
    """The parts of an expert, with all that it sees beside what the loop gives."""

    def inputs(self, graph: str, given: Mapping[str, Any], branch: str) -> Mapping[str, Given]: ...


Chunk = tuple[slice, Callable[[str], PartsAt]]
"""The latent frames of a chunk, and the parts of each expert, by its component, as they work on it."""


def spans(facts: CacheFacts | None, frames: int) -> list[slice]:
    """The latent frames of each chunk of a video with so many."""
    lengths = [frames] if facts is None else facts.lengths(frames)
    ends = np.cumsum(lengths).tolist()
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def division(facts: CacheFacts) -> str:
    """How videos are divided, in words."""
    sink = f", and the first {facts.window.sink}" if facts.window.sink else ""
    return f"chunks of {facts.chunk} latent frames, behind the last {facts.window.recent} chunks{sink}"


def other_chunks(mine: CacheFacts | None, wanted: CacheFacts | None) -> str | None:
    """Why videos of two models cannot be held against each other; None where both are divided alike."""
    at_once = [facts is None for facts in (mine, wanted)]
    if at_once == [False, True]:
        return "it makes a video chunk by chunk, and the reference all frames at once"
    if at_once == [True, False]:
        return "it makes all frames at once, and the reference a video chunk by chunk"
    if mine is None or wanted is None or (mine.chunk, mine.window) == (wanted.chunk, wanted.window):
        return None
    return f"it makes {division(mine)}, and the reference {division(wanted)}"


def pictures_of(span: slice, clip: ReferenceClip) -> slice:
    """The frames that latent frames become: the first is one frame, each later one as many as all of them."""
    latent_frames, frames = clip.latents.shape[3], len(clip.frames)
    stride = (frames - 1) // max(1, latent_frames - 1)
    first, end = (1 + (place - 1) * stride if place else 0 for place in (span.start, span.stop))
    return slice(first, end)


def request_of(pipeline: Pipeline, clip: ReferenceClip) -> Request:
    """What makes a clip's video with a bundle."""
    return request_for(pipeline, clip.prompt, clip.seed, clip.latents[0])


def request_for(pipeline: Pipeline, prompt: str, seed: int, noise: Array) -> Request:
    """What makes a video from some noise, which is that of the seed: a causal model's steps may take more of that."""
    shape = next(one for one in pipeline.bundle.shapes if pipeline.bundle.latent_shape(one) == noise.shape)
    if pipeline.bundle.cache is None:
        return Request(prompt, latents=noise, shape=shape.name)
    return Request(prompt, seed=seed, shape=shape.name)


def chunks_at(pipeline: Pipeline, clip: ReferenceClip) -> Iterator[Chunk]:
    """A bundle chunk by chunk, each behind the reference's own clean latents of earlier ones: the bundle makes keys and
    values of those, and keeps them in its format. Raises TargetError.
    """
    facts, frames = pipeline.bundle.cache, clip.latents.shape[3]
    if facts is None:
        yield slice(0, frames), cache(pipeline.parts)  # what they make of a prompt is good for all steps of its clip
        return
    video, clean = pipeline.video(request_of(pipeline, clip), clip.texts), clip.latents[-1]
    for span in spans(facts, frames):
        yield span, video.seeing(part(clean, span))
        if span.stop < frames:
            video.keep(part(clean, span))


def last_chunk(pipeline: Pipeline, clip: ReferenceClip) -> Chunk:
    """The last chunk of a clip, which sees the most of the past."""
    *_, found = chunks_at(pipeline, clip)
    return found


def part(latents: Array, span: slice) -> Array:
    """Some frames of latents [1, channels, frames, height, width]."""
    return np.ascontiguousarray(latents[:, :, span])


Pair = tuple[ReferenceClip, Array, Array]
"""A clip, and clean latents and frames that are held against it."""


def chunk_errors(facts: CacheFacts | None, pairs: Sequence[Pair], velocities: Array) -> list[ChunkError]:
    """Of each chunk how far videos are from the reference, mean over clips; nothing of models that make one at once.

    `velocities` are errors of guided ones, [clips, chunks, steps].
    """
    if facts is None:
        return []
    frames = pairs[0][1].shape[2]
    by_chunk = zip(spans(facts, frames), velocities.mean(axis=0), strict=True)
    return [_chunk_error(number, span, pairs, steps) for number, (span, steps) in enumerate(by_chunk)]


def _chunk_error(number: int, span: slice, pairs: Sequence[Pair], steps: Array) -> ChunkError:
    shown = pictures_of(span, pairs[0][0])
    latents = [(part(found, span), part(clip.latents[-1], span)) for clip, found, _ in pairs]
    return ChunkError(
        chunk=number,
        first_frame=shown.start,
        frames=shown.stop - shown.start,
        steps=steps.tolist(),
        velocity_error=float(steps.mean()),
        cosine=float(np.mean([cosine(*pair) for pair in latents])),
        sqnr_db=float(np.mean([sqnr_db(*pair) for pair in latents])),
        psnr_db=float(np.mean([psnr(clip.frames[shown], frames[shown]) for clip, _, frames in pairs])),
    )


def furthest_chunks(facts: CacheFacts | None, pairs: Sequence[Pair], velocities: Array) -> dict[str, list[float]]:
    """Of each clip the chunk that is furthest from the reference, by the names of gates."""
    if facts is None:
        return {}
    each = [chunk_errors(facts, [pair], velocities[clip : clip + 1]) for clip, pair in enumerate(pairs)]
    return {
        "chunk_velocity_error": [max(one.velocity_error for one in chunks) for chunks in each],
        "chunk_sqnr_db": [min(one.sqnr_db for one in chunks) for chunks in each],
        "chunk_psnr_db": [min(one.psnr_db for one in chunks) for chunks in each],
    }
