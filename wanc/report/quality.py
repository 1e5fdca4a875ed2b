"""How far a bundle is from the reference, and how far the reference is from itself with one number in another place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, get_args

import numpy as np

from wanc.report.chunks import chunk_errors, furthest_chunks, part, spans
from wanc.report.detectors.registry import Detector
from wanc.report.document import BlockError, Drift, Estimate, Floor, Invariant, Quality
from wanc.report.free_run import FreeRun, decoded_frames, drift, free_run, worst_frames
from wanc.report.invariants import checks_of
from wanc.report.metrics.pictures import psnr_by_frame
from wanc.report.metrics.video import METRICS, compare
from wanc.report.prompt_agreement import PROMPT_AGREEMENT, kept_agreement, prompt_agreement
from wanc.report.reference import Changed, ReferenceClip, ReferenceRecord, Unit
from wanc.report.statistics import cosine, estimate, relative_error, sqnr_db
from wanc.report.subject import Subject
from wanc.report.teacher_forced import Advance, Velocities, block_errors, velocity_errors
from wanc.report.unfinished import NOTHING_KEPT, Measurements
from wanc.runtime.pipeline import Pipeline

Array = np.ndarray[Any, Any]
OF_LATENTS = ("cosine", "sqnr_db")
VELOCITY_ERROR, TEXT_ERROR, DECODED_PSNR = "velocity_error", "text_error", "decoded_psnr_db"


@dataclass(frozen=True)
class MeasuredBundle:
    """What is told of a bundle, and its videos by clip."""

    quality: Quality
    runs: Sequence[FreeRun]


def parts_of(record: ReferenceRecord) -> int:
    """How many things `measure` measures, one after the other: three of each clip, and what has to be exact."""
    return 3 * len(record.clips) + len(checks_of(record))


def measure(
    subject: Subject,
    record: ReferenceRecord,
    advance: Advance,
    kept: Measurements = NOTHING_KEPT,
    detector: Detector | None = None,
) -> MeasuredBundle:
    """Execute a bundle on every clip of the reference; `advance` is told of each of `parts_of` it.

    What is `kept` already is not measured again. Raises UserError where the bundle fails, or is of other shapes.
    """
    clips = _ClipByClip(record.clips, kept, advance)
    forced = clips.of("forced", partial(_forced, subject.pipeline, record.timesteps))
    free = clips.of("free", partial(_free, subject.pipeline))
    runs = [FreeRun(found["latents"], found["frames"]) for found in free]
    scored = clips.of("scores", lambda clip: _scored(clip, runs[clip.number]))
    # What a detector sees is not kept: another one may be named until the report is gone on with.
    videos = [
        {name: float(value) for name, value in scores.items()} | prompt_agreement(detector, clip, run.frames)
        for clip, run, scores in zip(record.clips, runs, scored, strict=True)
    ]
    experts = [subject.pipeline.expert_at(timestep).component for timestep in record.timesteps]
    velocities = Velocities(record.timesteps, experts, np.stack([found["velocities"] for found in forced]))
    pairs = [(clip, run.latents[-1], run.frames) for clip, run in zip(record.clips, runs, strict=True)]
    more = {
        VELOCITY_ERROR: velocities.by_clip,
        TEXT_ERROR: [float(found["text"]) for found in forced],
        DECODED_PSNR: [float(found["decoded"]) for found in free],
        **furthest_chunks(record.cache, pairs, velocities.guided),
    }
    frames = {clip.number: psnr_by_frame(clip.frames, runs[clip.number].frames).tolist() for clip in record.clips}
    invariants: list[Invariant] = []
    for check in checks_of(record):
        invariants.append(check.checked(subject, record.clips[0], runs[0], kept))
        advance()
    quality = Quality(
        steps=velocities.steps,
        blocks=[error for component in subject.block_ends for error in _blocks(subject, record, component, kept)],
        drift=drift([run.latents for run in runs], record.clips),
        chunks=chunk_errors(record.cache, pairs, velocities.guided),
        videos=videos,
        summary={**_summary(videos), **{name: estimate(values) for name, values in more.items()}},
        invariants=invariants,
        worst_layers=list(subject.worst_layers),
        worst_frames=worst_frames(frames),
    )
    return MeasuredBundle(quality, runs)


@dataclass(frozen=True)
class _ClipByClip:
    """Measures one thing after the other, each of all clips, and keeps it."""

    clips: Sequence[ReferenceClip]
    kept: Measurements
    advance: Advance

    def of(self, what: str, measure: Callable[[ReferenceClip], Mapping[str, Array]]) -> list[Mapping[str, Array]]:
        found: list[Mapping[str, Array]] = []
        for clip in self.clips:
            found.append(self.kept.arrays(f"{what}-{clip.number:04}", partial(measure, clip)))
            self.advance()
        return found


def _forced(pipeline: Pipeline, timesteps: Sequence[float], clip: ReferenceClip) -> Mapping[str, Array]:
    """Errors at the reference's own states: of the `velocities`, and of the states of the `text`."""
    text = relative_error(pipeline.text_states(clip.prompt), clip.texts[0])
    return {"velocities": velocity_errors(pipeline, timesteps, clip), "text": np.array(text)}


def _free(pipeline: Pipeline, clip: ReferenceClip) -> Mapping[str, Array]:
    """The bundle's own video, and the PSNR of what it has `decoded` of the reference's latents."""
    run = free_run(pipeline, clip)
    decoded = np.mean(psnr_by_frame(clip.frames, decoded_frames(pipeline, clip.latents[-1])))
    return {"latents": run.latents, "frames": run.frames, "decoded": np.array(decoded, np.float64)}


def _scored(clip: ReferenceClip, run: FreeRun) -> Mapping[str, Array]:
    return {name: np.array(value) for name, value in _scores(clip, run.latents[-1], run.frames).items()}


def _blocks(subject: Subject, record: ReferenceRecord, component: str, kept: Measurements) -> list[BlockError]:
    found = kept.arrays(f"blocks-{component}", lambda: {"errors": block_errors(subject, record, component)})["errors"]
    return [
        BlockError(step=step, expert=component, block=block, error=float(error))
        for (step, block), error in np.ndenumerate(found)
        if not np.isnan(error)
    ]


def floors(record: ReferenceRecord, detector: Detector | None = None) -> list[Floor]:
    """The noise floor for each format: of the reference's changed selves what `measure` tells of a bundle."""
    return [_floor(unit, pairs, record, detector) for unit, pairs in _changed(record).items() if pairs]


def velocity_floor(record: ReferenceRecord, unit: Unit) -> float | None:
    """Of a floor the error of the velocity alone, for which no video is looked at; None where there is none."""
    pairs = _changed(record)[unit]
    return float(_velocity_errors(record, pairs).mean()) if pairs else None


def _changed(record: ReferenceRecord) -> dict[Unit, list[tuple[ReferenceClip, Changed]]]:
    """The reference's changed selves by format, each with the clip that it is of."""
    changed: dict[Unit, list[tuple[ReferenceClip, Changed]]] = {unit: [] for unit in get_args(Unit)}
    for clip in record.clips:
        for one in record.changed(clip):
            changed[one.unit].append((clip, one))
    return changed


def _velocity_errors(record: ReferenceRecord, pairs: Sequence[tuple[ReferenceClip, Changed]]) -> Array:
    """Of the guided ones at the tapped steps, float64 [clips, chunks, steps]."""
    return np.stack([_changed_velocities(record, clip, one) for clip, one in pairs])


def _floor(
    unit: Unit, pairs: Sequence[tuple[ReferenceClip, Changed]], record: ReferenceRecord, detector: Detector | None
) -> Floor:
    videos = [
        {**_scores(clip, one.latents[-1], one.frames), **kept_agreement(detector, clip, one.frames)}
        for clip, one in pairs
    ]
    forced = _velocity_errors(record, pairs)
    errors: list[float] = forced.mean(axis=(1, 2)).tolist()
    videos_of = [(clip, one.latents[-1], one.frames) for clip, one in pairs]
    further = furthest_chunks(record.cache, videos_of, forced)
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
        chunks=chunk_errors(record.cache, videos_of, forced),
        summary={
            **_summary(videos),
            **{name: estimate(values) for name, values in {VELOCITY_ERROR: errors, **further}.items()},
        },
    )


def _changed_velocities(record: ReferenceRecord, clip: ReferenceClip, one: Changed) -> Array:
    """Errors of the guided velocity at the tapped steps, float64 [chunks, steps]."""
    each = [(clip.guided[step], one.guided[place]) for place, step in enumerate(record.tapped)]
    chunks = spans(record.cache, clip.latents.shape[3])
    return np.array(
        [[relative_error(part(found, span), part(wanted, span)) for wanted, found in each] for span in chunks]
    )


def _scores(clip: ReferenceClip, latents: Array, frames: Array) -> dict[str, float]:
    metrics = {name: float(value) for name, value in asdict(compare(clip.frames, frames)).items()}
    return {**metrics, "cosine": cosine(latents, clip.latents[-1]), "sqnr_db": sqnr_db(latents, clip.latents[-1])}


def _summary(videos: Sequence[Mapping[str, float]]) -> dict[str, Estimate]:
    """Of all that is a figure, over the videos that have it; how it was measured is told of each video."""
    names = (*METRICS, *OF_LATENTS, PROMPT_AGREEMENT)
    values = {name: [video[name] for video in videos if name in video] for name in names}
    return {name: estimate(known) for name, known in values.items() if known}
