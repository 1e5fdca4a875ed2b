"""Making a report: measure every bundle, judge the new one, and say where a change begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wanc.artifacts.refs import build_seconds
from wanc.errors import UserError
from wanc.recipe.gates import kind_of
from wanc.report.cause import Suspects
from wanc.report.chunks import division
from wanc.report.document import (
    Cause,
    Clip,
    ExternalScores,
    Floor,
    GateResult,
    ReportDocument,
    ReportedBundle,
    ReportedReference,
)
from wanc.report.free_run import FreeRun
from wanc.report.gates import DEFAULTS, Judge, floor_of
from wanc.report.invariants import BundleVideos, partitioned
from wanc.report.layer_times import layer_groups
from wanc.report.looked_at import LookedAt, look_at
from wanc.report.model_card import ModelCard
from wanc.report.prompt_agreement import reference_agreement
from wanc.report.quality import floors, parts_of
from wanc.report.reference import ReferenceRecord
from wanc.report.speed import ROUNDS, machine, timed
from wanc.report.unfinished import Unfinished
from wanc.report.verdict import verdict
from wanc.runtime.progress import ProgressBar
from wanc.runtime.version import VERSION
from wanc.words import Against


@dataclass
class ReportRequest:
    """What a report is of: new bundles, others to show beside them, and the baseline, which may be None.

    `gates` are those of a recipe; without any, and with a baseline, those of `gates.DEFAULTS`. `against` the reference
    alone, a baseline is shown and no gate is about it. `pairs` of 0 leave the speed out. The `store` may know how long
    a bundle's build took. What is `unfinished` is gone on with. `scores` are of the first new bundle's videos. `card`
    is the model's.
    """

    title: str
    new: Sequence[Path]
    others: Sequence[Path]
    baseline: Path | None
    record: ReferenceRecord
    model: str
    gates: Mapping[str, str]
    pairs: int
    against: Against = "baseline"
    scores: ExternalScores | None = None
    card: ModelCard = field(default_factory=ModelCard)
    store: Path | None = None
    unfinished: Unfinished | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Made:
    """A report, and the videos that it shows: by bundle those of each clip, none where it could not be measured."""

    report: ReportDocument
    runs: Mapping[str, Sequence[FreeRun]]


def make_report(asked: ReportRequest, *, progress: bool) -> Made:
    """Measure what is asked for, and judge it; whatever fails on the way is told in the report.

    Raises BundleError where the reference cannot be read.
    """
    bundles = _named([*asked.new, *asked.others, *([asked.baseline] if asked.baseline else [])])
    detector = asked.card.detector
    new, baseline = list(bundles)[: len(asked.new)], list(bundles)[-1] if asked.baseline else None
    looked_at = _looked_at(bundles, asked, progress=progress)
    looked_at[new[0]].score(asked.scores)
    entries = {name: one.entry for name, one in looked_at.items()}
    known = floors(asked.record, detector)
    before = entries[baseline] if baseline and asked.against == "baseline" else None
    results = {
        name: one.failed or Judge(one.entry, before, known, detector and detector.name).judge(_gates(asked))
        for name, one in looked_at.items()
        if name != baseline
    }
    demanded = [result for name in new for result in results[name]]
    report = ReportDocument(
        title=asked.title,
        wanc=VERSION,
        verdict=verdict(", ".join(new), demanded, _cause(looked_at, baseline, known, demanded, asked.record)),
        reference=_reference(asked, looked_at.values(), known),
        clips=[Clip(prompt=clip.prompt, seed=clip.seed) for clip in asked.record.clips],
        baseline=baseline,
        machine=machine(asked.threads),
        bundles=list(entries.values()),
        gates=[result for found in results.values() for result in found],
        notes=[*asked.card.notes, *_notes(entries.values()), *_hint(demanded, baseline, asked.record)],
    )
    return Made(report, {name: one.runs for name, one in looked_at.items()})


def _looked_at(bundles: Mapping[str, Path], asked: ReportRequest, *, progress: bool) -> dict[str, LookedAt]:
    """Every bundle, measured and timed."""
    looked_at: dict[str, LookedAt] = {}
    with ProgressBar("report", len(bundles) * parts_of(asked.record), enabled=progress) as bar:
        for name, path in bundles.items():
            looked_at[name] = look_at(
                name, path, asked.record, asked.threads, bar.advance, asked.unfinished, asked.card.detector
            )
            if asked.store:
                looked_at[name].built_in(build_seconds(asked.store, path, looked_at[name].entry.facts.id))
    sound = {name: path for name, path in bundles.items() if not looked_at[name].failed}
    _hold_partitioned([looked_at[name] for name in sound])
    if asked.pairs and sound:
        _time(looked_at, sound, asked, progress=progress)
    return looked_at


def _time(
    looked_at: Mapping[str, LookedAt], sound: Mapping[str, Path], asked: ReportRequest, *, progress: bool
) -> None:
    """All bundles in turn, and their Linears beside the baseline's, which is the last where there is one."""
    baseline = looked_at[list(looked_at)[-1]] if asked.baseline and list(looked_at)[-1] in sound else None
    try:
        with ProgressBar("times", ROUNDS * len(sound) + asked.pairs + len(sound), enabled=progress) as bar:
            speeds, ratios = timed(sound, asked.record, asked.pairs, asked.threads, bar.advance)
            for name in sound:
                one = looked_at[name]
                one.time(speeds[name], ratios[name] if baseline else [])
                if one is not baseline:
                    assert one.subject is not None, "it was measured"
                    one.group(layer_groups(one.subject, baseline and baseline.subject, asked.record))
                bar.advance()
    except UserError as error:
        for name in sound:
            looked_at[name].fail("infrastructure-error", error)


def _hold_partitioned(looked_at: Sequence[LookedAt]) -> None:
    """Each that is cut against the same in one piece, where the report has that as well."""
    pieces = [(one, BundleVideos(one.subject, one.runs)) for one in looked_at if one.subject is not None]
    for one, piece in pieces:
        if invariant := partitioned(piece, (other for _, other in pieces)):
            one.holds(invariant)


def _gates(asked: ReportRequest) -> dict[str, str]:
    gates = asked.gates or (DEFAULTS if asked.baseline and asked.against == "baseline" else {})
    return {name: text for name, text in gates.items() if asked.pairs or kind_of(name) != "speed"}


def _cause(
    looked_at: Mapping[str, LookedAt],
    baseline: str | None,
    known: Sequence[Floor],
    demanded: Sequence[GateResult],
    record: ReferenceRecord,
) -> Cause | None:
    """Of the first regression."""
    failed = [result for result in demanded if result.outcome == "regression"]
    if not failed or (one := looked_at[failed[0].bundle]).subject is None:
        return None
    before = looked_at[baseline] if baseline and not looked_at[baseline].failed else None
    suspects = Suspects(
        one.subject, one.entry, before and before.subject, before and before.entry, floor_of(one.entry, known), record
    )
    return suspects.first_cause([result for result in failed if result.bundle == one.entry.name])


def _named(paths: Iterable[Path]) -> dict[str, Path]:
    """By the name of its folder, which a number tells from another of that name."""
    named: dict[str, Path] = {}
    for path in paths:
        name, number = path.resolve().name, 2
        while name in named:
            name, number = f"{path.resolve().name} ({number})", number + 1
        named[name] = path
    return named


def _reference(asked: ReportRequest, looked_at: Iterable[LookedAt], known: Sequence[Floor]) -> ReportedReference | None:
    """None where no bundle could be opened that says what a video is sampled with."""
    subject = next((one.subject for one in looked_at if one.subject is not None), None)
    if subject is None:
        return None
    frames, height, width, _ = asked.record.clips[0].frames.shape
    return ReportedReference(
        model=asked.model,
        width=width,
        height=height,
        frames=frames,
        fps=subject.pipeline.bundle.sampling.fps,
        steps=len(asked.record.timesteps),
        solver=subject.pipeline.bundle.sampling.solver,
        chunks=asked.record.cache and division(asked.record.cache),
        key=asked.record.key,
        floors=list(known),
        detector=asked.card.detector and asked.card.detector.name,
        prompt_agreement=reference_agreement(asked.card.detector, asked.record),
    )


def _notes(entries: Iterable[ReportedBundle]) -> list[str]:
    videos = [video for entry in entries if entry.quality for video in entry.quality.videos]
    notes: list[str] = []
    if scales := {int(video["ms_ssim_scales"]) for video in videos} - {5}:
        notes.append(f"MS-SSIM is measured at {max(scales)} scales in place of five: the frames are small.")
    if factors := {int(video["vmaf_enlargement"]) for video in videos} - {1}:
        notes.append(f"VMAF is measured on frames enlarged {max(factors)} times: they are small.")
    return notes


def _hint(demanded: Sequence[GateResult], baseline: str | None, record: ReferenceRecord) -> Iterator[str]:
    """What tells the stage that made a video worse than the baseline's."""
    if record.cache is not None:
        yield (
            "The model is causal: errors of blocks are those of the last chunk, which sees the most of the past; which "
            "stage of a build brought a change is not told of such models."
        )
        return
    worse = next((one for one in demanded if (one.outcome, one.kind) == ("regression", "quality")), None)
    if worse is not None and baseline is not None:
        command = f"wanc report bisect {worse.bundle} --baseline {baseline}"
        yield f"Which stage of the build brought the change is told by: {command}"
