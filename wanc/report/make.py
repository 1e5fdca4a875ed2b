"""Making a report: measure every bundle, judge the new one, and say where a change begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from wanc.errors import UserError, render
from wanc.recipe.gates import GATES
from wanc.report.cause import Suspects
from wanc.report.document import Clip, Facts, Floor, ReportDocument, ReportedBundle, ReportedReference
from wanc.report.gates import DEFAULTS, Judge, floor_of
from wanc.report.quality import MeasuredBundle, floors, measure
from wanc.report.reference import ReferenceRecord
from wanc.report.speed import machine, timed
from wanc.report.subject import Subject
from wanc.report.verdict import verdict
from wanc.runtime.progress import ProgressBar
from wanc.runtime.version import VERSION

UNKNOWN = Facts(
    id="", version="", engine="", compute="", scheme="", segments=0, size_bytes=0, int8_linear_share={}, schemes={}
)


@dataclass
class ReportRequest:
    """What a report is of: new bundles, others to show beside them, and the baseline, which may be None.

    `gates` are those of a recipe; without any, and with a baseline, those of `gates.DEFAULTS`. `pairs` of 0 leave the
    speed out.
    """

    title: str
    new: Sequence[Path]
    others: Sequence[Path]
    baseline: Path | None
    record: ReferenceRecord
    model: str
    gates: Mapping[str, str]
    pairs: int
    threads: int | None = None


@dataclass
class Made:
    """A report, and the videos that it shows: by bundle those of each clip."""

    report: ReportDocument
    measured: Mapping[str, MeasuredBundle] = field(default_factory=dict[str, MeasuredBundle])


def make_report(asked: ReportRequest, *, progress: bool) -> Made:
    """Raises UserError where not even the reference can be read; whatever else fails is told in the report."""
    bundles = _named([*asked.new, *asked.others, *([asked.baseline] if asked.baseline else [])])
    new, baseline = list(bundles)[: len(asked.new)], list(bundles)[-1] if asked.baseline else None
    subjects: dict[str, Subject] = {}
    measured: dict[str, MeasuredBundle] = {}
    failures: dict[str, str] = {}
    with ProgressBar("report", 3 * len(asked.record.clips) * len(bundles), enabled=progress) as bar:
        for name, path in bundles.items():
            try:
                subjects[name] = Subject.open(path, name, threads=asked.threads)
                _check_comparable(subjects[name], asked.record)
                measured[name] = measure(subjects[name], asked.record, bar.advance)
            except UserError as error:
                failures[name] = render(error)
    entries = {name: _entry(name, subjects.get(name), measured.get(name), failures.get(name)) for name in bundles}
    if asked.pairs and not failures:
        speeds, ratios = timed(bundles, asked.record, asked.pairs, asked.threads)
        entries = {
            name: entry.model_copy(update={"speed": speeds[name], "ratios": ratios[name] if baseline else []})
            for name, entry in entries.items()
        }
    known = floors(asked.record)
    gates = asked.gates or (DEFAULTS if baseline else {})
    gates = {name: text for name, text in gates.items() if asked.pairs or not _is_about_speed(name)}
    before = entries[baseline] if baseline else None
    results = {name: Judge(entry, before, known).judge(gates) for name, entry in entries.items() if name != baseline}
    demanded = [result for name in new for result in results[name]]
    failed = [result for result in demanded if result.outcome == "regression"]
    cause = None
    if failed and (first := failed[0].bundle) in measured:
        floor = floor_of(entries[first], known)
        suspects = Suspects(subjects[first], entries[first], subjects.get(baseline or ""), before, floor, asked.record)
        cause = suspects.first_cause([result for result in failed if result.bundle == first])
    report = ReportDocument(
        title=asked.title,
        wanc=VERSION,
        verdict=verdict(", ".join(new), demanded, cause),
        reference=_reference(asked, subjects.values(), known),
        clips=[Clip(prompt=clip.prompt, seed=clip.seed) for clip in asked.record.clips],
        baseline=baseline,
        machine=machine(asked.threads),
        bundles=list(entries.values()),
        gates=[result for found in results.values() for result in found],
        notes=_notes(measured),
    )
    return Made(report, measured)


def _is_about_speed(name: str) -> bool:
    return GATES[name] == "speed"


def _named(paths: Iterable[Path]) -> dict[str, Path]:
    """By the name of its folder, which a number tells from another of that name."""
    named: dict[str, Path] = {}
    for path in paths:
        name, number = path.resolve().name, 2
        while name in named:
            name, number = f"{path.resolve().name} ({number})", number + 1
        named[name] = path
    return named


def _check_comparable(subject: Subject, record: ReferenceRecord) -> None:
    """Raises UserError where a bundle does not make the reference's videos."""
    bundle = subject.pipeline.bundle
    wanted = record.clips[0].latents[0].shape
    if all(bundle.latent_shape(shape) != wanted for shape in bundle.shapes):
        shapes = ", ".join(f"{shape.width}x{shape.height}, {shape.frames} frames" for shape in bundle.shapes)
        raise NotComparableError(f"it makes videos of {shapes}, and the reference has latents {list(wanted)}")
    if (timesteps := tuple(subject.timesteps)) != record.timesteps:
        raise NotComparableError(
            f"it samples in {len(timesteps)} steps from {timesteps[0]:g}, "
            f"and the reference in {len(record.timesteps)} from {record.timesteps[0]:g}"
        )


class NotComparableError(UserError):
    """A bundle of other shapes, or that samples otherwise."""


def _entry(name: str, subject: Subject | None, measured: MeasuredBundle | None, failure: str | None) -> ReportedBundle:
    return ReportedBundle(
        name=name,
        recipe=subject.recipe if subject else "",
        facts=subject.facts if subject else UNKNOWN,
        quality=measured.quality if measured else None,
        failure=failure,
    )


def _reference(asked: ReportRequest, subjects: Iterable[Subject], known: Sequence[Floor]) -> ReportedReference | None:
    with suppress(StopIteration):
        bundle = next(iter(subjects)).pipeline.bundle
        frames, height, width, _ = asked.record.clips[0].frames.shape
        return ReportedReference(
            model=asked.model,
            width=width,
            height=height,
            frames=frames,
            fps=bundle.sampling.fps,
            steps=len(asked.record.timesteps),
            solver=bundle.sampling.solver,
            key=asked.record.key,
            floors=list(known),
        )
    return None


def _notes(measured: Mapping[str, MeasuredBundle]) -> list[str]:
    videos = [video for one in measured.values() for video in one.quality.videos]
    notes: list[str] = []
    if scales := {int(video["ms_ssim_scales"]) for video in videos} - {5}:
        notes.append(f"MS-SSIM is measured at {max(scales)} scales in place of five: the frames are small.")
    if factors := {int(video["vmaf_enlargement"]) for video in videos} - {1}:
        notes.append(f"VMAF is measured on frames enlarged {max(factors)} times: they are small.")
    return notes
