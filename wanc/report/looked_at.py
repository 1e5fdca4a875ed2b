"""A bundle that was opened and measured, or could not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wanc.errors import UserError, render
from wanc.report.document import ExternalScores, Facts, GateResult, Outcome, Ratio, ReportedBundle, Speed
from wanc.report.free_run import FreeRun
from wanc.report.quality import measure
from wanc.report.reference import ReferenceRecord
from wanc.report.subject import Subject
from wanc.report.teacher_forced import Advance

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

    def built_in(self, seconds: float | None) -> None:
        facts = self.entry.facts.model_copy(update={"build_seconds": seconds})
        self.entry = self.entry.model_copy(update={"facts": facts})

    def score(self, scores: ExternalScores | None) -> None:
        self.entry = self.entry.model_copy(update={"external": scores})

    def time(self, speed: Speed, ratios: list[Ratio]) -> None:
        self.entry = self.entry.model_copy(update={"speed": speed, "ratios": ratios})


def look_at(name: str, path: Path, record: ReferenceRecord, threads: int | None, advance: Advance) -> LookedAt:
    """Open a bundle and measure it; `advance` is told three times of each clip."""
    looked_at = LookedAt(ReportedBundle(name=name, recipe="", facts=UNKNOWN))
    try:
        subject = looked_at.subject = Subject.open(path, name, threads=threads)
        looked_at.entry = ReportedBundle(name=name, recipe=subject.recipe, facts=subject.facts)
        _check_comparable(subject, record)
        found = measure(subject, record, advance)
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
