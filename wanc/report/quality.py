"""How far a bundle is from the reference, and how far the reference is from itself with one number in another place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np

from wanc.report.document import Drift, Estimate, Floor, Invariant, Quality
from wanc.report.free_run import FreeRun, drift, free_run, worst_frames
from wanc.report.metrics.pictures import psnr_by_frame
from wanc.report.metrics.video import METRICS, compare
from wanc.report.reference import Changed, ReferenceClip, ReferenceRecord, Unit
from wanc.report.statistics import cosine, estimate, relative_error, sqnr_db
from wanc.report.subject import Subject
from wanc.report.teacher_forced import Advance, block_errors, velocities
from wanc.runtime.timer import Timer

Array = np.ndarray[Any, Any]
OF_LATENTS = ("cosine", "sqnr_db")
VELOCITY_ERROR, TEXT_ERROR, DECODED_PSNR = "velocity_error", "text_error", "decoded_psnr_db"


@dataclass(frozen=True)
class MeasuredBundle:
    """What is told of a bundle, and its videos by clip."""

    quality: Quality
    runs: Sequence[FreeRun]


def measure(subject: Subject, record: ReferenceRecord, advance: Advance) -> MeasuredBundle:
    """Execute a bundle on every clip of the reference; `advance` is told three times of each.

    Raises UserError where the bundle fails, or is of other shapes.
    """
    pipeline = subject.pipeline
    forced = velocities(pipeline, record, advance)
    texts = [relative_error(pipeline.text_states(clip.prompt), clip.texts[0]) for clip in record.clips]
    runs: list[FreeRun] = []
    decoded: list[float] = []
    for clip in record.clips:
        runs.append(free_run(pipeline, clip.prompt, clip.latents[0]))
        shown = np.concatenate([chunk.copy() for chunk in pipeline.decode(clip.latents[-1], Timer())])
        decoded.append(float(np.mean(psnr_by_frame(clip.frames, shown))))
        advance()
    videos: list[dict[str, float]] = []
    for clip, run in zip(record.clips, runs, strict=True):
        videos.append(_scores(clip, run.latents[-1], run.frames))
        advance()
    more = {VELOCITY_ERROR: forced.by_clip, TEXT_ERROR: texts, DECODED_PSNR: decoded}
    frames = {
        clip.number: psnr_by_frame(clip.frames, run.frames).tolist()
        for clip, run in zip(record.clips, runs, strict=True)
    }
    quality = Quality(
        steps=forced.steps,
        blocks=block_errors(subject, record),
        drift=drift([run.latents for run in runs], record.clips),
        videos=videos,
        summary={**_summary(videos), **{name: estimate(values) for name, values in more.items()}},
        invariants=[_same_again(subject, record.clips[0], runs[0])],
        worst_layers=list(subject.worst_layers),
        worst_frames=worst_frames(frames),
    )
    return MeasuredBundle(quality, runs)


def floors(record: ReferenceRecord) -> list[Floor]:
    """The noise floor for each format: of the reference's changed selves what `measure` tells of a bundle."""
    changed: dict[Unit, list[tuple[ReferenceClip, Changed]]] = {unit: [] for unit in get_args(Unit)}
    for clip in record.clips:
        for one in record.changed(clip):
            changed[one.unit].append((clip, one))
    return [_floor(unit, pairs, record.tapped) for unit, pairs in changed.items() if pairs]


def _floor(unit: Unit, pairs: Sequence[tuple[ReferenceClip, Changed]], tapped: Sequence[int]) -> Floor:
    videos = [_scores(clip, one.latents[-1], one.frames) for clip, one in pairs]
    errors = [
        float(np.mean([relative_error(one.guided[place], clip.guided[step]) for place, step in enumerate(tapped)]))
        for clip, one in pairs
    ]
    steps = range(1, len(pairs[0][0].latents))
    return Floor(
        unit=unit,
        draws=len(pairs),
        velocity_error=float(np.mean(errors)),
        drift=[
            Drift(
                step=step - 1,
                cosine=float(np.mean([cosine(one.latents[step], clip.latents[step]) for clip, one in pairs])),
                sqnr_db=float(np.mean([sqnr_db(one.latents[step], clip.latents[step]) for clip, one in pairs])),
            )
            for step in steps
        ],
        summary={**_summary(videos), VELOCITY_ERROR: estimate(errors)},
    )


def _scores(clip: ReferenceClip, latents: Array, frames: Array) -> dict[str, float]:
    metrics = {name: float(value) for name, value in asdict(compare(clip.frames, frames)).items()}
    return {**metrics, "cosine": cosine(latents, clip.latents[-1]), "sqnr_db": sqnr_db(latents, clip.latents[-1])}


def _summary(videos: Sequence[Mapping[str, float]]) -> dict[str, Estimate]:
    """Of all that is a figure; how it was measured is told of each video."""
    return {name: estimate([video[name] for video in videos]) for name in (*METRICS, *OF_LATENTS)}


def _same_again(subject: Subject, clip: ReferenceClip, run: FreeRun) -> Invariant:
    again = free_run(subject.pipeline, clip.prompt, clip.latents[0])
    holds = np.array_equal(again.latents, run.latents) and np.array_equal(again.frames, run.frames)
    detail = "the first clip, made twice, is the same to the bit" if holds else "the first clip differs when made twice"
    return Invariant(name="same again", holds=holds, detail=detail)
