"""A bundle that was opened and measured, or could not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wanc.errors import UserError, render
from wanc.report.chunks import other_chunks
from wanc.report.detectors.registry import Detector
from wanc.report.document import (
    ExternalScores,
    Facts,
    GateResult,
    Invariant,
    LayerGroup,
    Outcome,
    Ratio,
    ReportedBundle,
    Speed,
)
from wanc.report.free_run import FreeRun
from wanc.report.quality import measure
from wanc.report.reference import ReferenceRecord
from wanc.report.speed import machine
from wanc.report.subject import Subject
from wanc.report.teacher_forced import Advance
from wanc.report.unfinished import NOTHING_KEPT, Unfinished

UNKNOWN = Facts(
    id="", version="", engine="", compute="", scheme="", segments=0, size_bytes=0, int8_linear_share={}, schemes={}
)


@dataclass
class LookedAt:
    """What is known of a bundle: `subject` where it could be opened, `runs` its videos by clip.

    `failed` is what stands in place of gates where it could not be measured.
    """

    entry: ReportedBundle
    subject: Subject | None = None
    runs: Sequence[FreeRun] = ()
    failed: list[GateResult] = field(default_factory=list[GateResult])

    def fail(self, outcome: Outcome, error: UserError) -> None:
        self.entry = self.entry.model_copy(update={"failure": render(error)})
        self.failed = [
            GateResult(
                name="measured",
                bundle=self.entry.name,
                demand="can be measured",
                kind="exact",
                value=None,
                bound=None,
                unit="",
                outcome=outcome,
                reason=error.message,
            )
        ]

    def holds(self, invariant: Invariant) -> None:
        """Of a bundle that was measured."""
        assert self.entry.quality is not None
        invariants = [*self.entry.quality.invariants, invariant]
        quality = self.entry.quality.model_copy(update={"invariants": invariants})
        self.entry = self.entry.model_copy(update={"quality": quality})

    def built_in(self, seconds: float | None) -> None:
        facts = self.entry.facts.model_copy(update={"build_seconds": seconds})
        self.entry = self.entry.model_copy(update={"facts": facts})

    def score(self, scores: ExternalScores | None) -> None:
        self.entry = self.entry.model_copy(update={"external": scores})

    def group(self, groups: list[LayerGroup]) -> None:
        self.entry = self.entry.model_copy(update={"groups": groups})

    def time(self, speed: Speed, ratios: list[Ratio]) -> None:
        self.entry = self.entry.model_copy(update={"speed": speed, "ratios": ratios})


def look_at(
    name: str,
    path: Path,
    record: ReferenceRecord,
    threads: int | None,
    advance: Advance,
    unfinished: Unfinished | None = None,
    detector: Detector | None = None,
) -> LookedAt:
    """Open a bundle and measure it, as far as that is `unfinished`; `advance` is told of each part of it."""
    looked_at = LookedAt(ReportedBundle(name=name, recipe="", facts=UNKNOWN))
    try:
        subject = looked_at.subject = Subject.open(path, name, threads=threads)
        looked_at.entry = ReportedBundle(name=name, recipe=subject.recipe, facts=subject.facts)
        _check_comparable(subject, record)
        kept = unfinished.of(subject.facts.id, record.key, machine(threads)) if unfinished else NOTHING_KEPT
        found = measure(subject, record, advance, kept, detector)
        subject.close()
    except NotComparableError as error:
        looked_at.fail("not-comparable", error)
    except UserError as error:
        looked_at.fail("infrastructure-error", error)
    else:
        looked_at.entry, looked_at.runs = looked_at.entry.model_copy(update={"quality": found.quality}), found.runs
    return looked_at


def _check_comparable(subject: Subject, record: ReferenceRecord) -> None:
    """Raises UserError where a bundle does not make the reference's videos."""
    bundle = subject.pipeline.bundle
    if (reason := other_chunks(bundle.cache, record.cache)) is not None:
        raise NotComparableError(reason)
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
