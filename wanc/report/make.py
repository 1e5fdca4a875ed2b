"""Making a report: measure every bundle, judge the new one, and say where a change begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wanc.artifacts.refs import build_seconds
from wanc.errors import UserError
from wanc.recipe.gates import kind_of
from wanc.report.cause import Suspects
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
from wanc.report.looked_at import LookedAt, look_at
from wanc.report.quality import floors
from wanc.report.reference import ReferenceRecord
from wanc.report.speed import ROUNDS, machine, timed
from wanc.report.verdict import verdict
from wanc.runtime.progress import ProgressBar
from wanc.runtime.version import VERSION


@dataclass
class ReportRequest:
    """What a report is of: new bundles, others to show beside them, and the baseline, which may be None.

    `gates` are those of a recipe; without any, and with a baseline, those of `gates.DEFAULTS`. `pairs` of 0 leave the
    speed out. The `store` may know how long a bundle's build took. `scores` are of the first new bundle's videos.
    """

    title: str
    new: Sequence[Path]
    others: Sequence[Path]
    baseline: Path | None
    record: ReferenceRecord
    model: str
    gates: Mapping[str, str]
    pairs: int
    scores: ExternalScores | None = None
    store: Path | None = None
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
    new, baseline = list(bundles)[: len(asked.new)], list(bundles)[-1] if asked.baseline else None
    looked_at = _looked_at(bundles, asked, progress=progress)
    looked_at[new[0]].score(asked.scores)
    entries = {name: one.entry for name, one in looked_at.items()}
    known, before = floors(asked.record), entries[baseline] if baseline else None
    results = {
        name: one.failed or Judge(one.entry, before, known).judge(_gates(asked))
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
        notes=_notes(entries.values()),
    )
    return Made(report, {name: one.runs for name, one in looked_at.items()})


def _looked_at(bundles: Mapping[str, Path], asked: ReportRequest, *, progress: bool) -> dict[str, LookedAt]:
    """Every bundle, measured and timed."""
    looked_at: dict[str, LookedAt] = {}
    with ProgressBar("report", 3 * len(asked.record.clips) * len(bundles), enabled=progress) as bar:
        for name, path in bundles.items():
            looked_at[name] = look_at(name, path, asked.record, asked.threads, bar.advance)
            if asked.store:
                looked_at[name].built_in(build_seconds(asked.store, path, looked_at[name].entry.facts.id))
    sound = {name: path for name, path in bundles.items() if not looked_at[name].failed}
    if asked.pairs and sound:
        try:
            with ProgressBar("times", ROUNDS * len(sound) + asked.pairs, enabled=progress) as bar:
                speeds, ratios = timed(sound, asked.record, asked.pairs, asked.threads, bar.advance)
        except UserError as error:
            for name in sound:
                looked_at[name].fail("infrastructure-error", error)
            return looked_at
        is_paired = asked.baseline is not None and list(bundles)[-1] in sound
        for name in sound:
            looked_at[name].time(speeds[name], ratios[name] if is_paired else [])
    return looked_at


def _gates(asked: ReportRequest) -> dict[str, str]:
    gates = asked.gates or (DEFAULTS if asked.baseline else {})
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
        key=asked.record.key,
        floors=list(known),
    )


def _notes(entries: Iterable[ReportedBundle]) -> list[str]:
    videos = [video for entry in entries if entry.quality for video in entry.quality.videos]
    notes: list[str] = []
    if scales := {int(video["ms_ssim_scales"]) for video in videos} - {5}:
        notes.append(f"MS-SSIM is measured at {max(scales)} scales in place of five: the frames are small.")
    if factors := {int(video["vmaf_enlargement"]) for video in videos} - {1}:
        notes.append(f"VMAF is measured on frames enlarged {max(factors)} times: they are small.")
    return notes
