"""Which stage of a build brought a change: what each stage of two builds left is executed at the reference's states.

A stage whose result is the same in both, or computes the same but for rounding, has brought none; the first other one
has. Engines come last: what the bundles themselves compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from wanc.errors import EXIT_NOT_COMPARABLE, UserError
from wanc.report.document import DocumentPart
from wanc.report.quality import floors
from wanc.report.reference import ReferenceRecord
from wanc.report.statistics import relative_error
from wanc.report.subject import LOCK, Subject, read_sealed
from wanc.runtime.denoise import TIMESTEP, Expert

Array = np.ndarray[Any, Any]
ENGINE = "engine"
LEAST, FLOORS = 1e-5, 10.0
"""Two results are the same where they differ by no more than float32 products do that are added up otherwise: so much,
or so many times what a change in the last place of the reference does.
"""


class StageResult(Protocol):
    """A component as one stage of a build has left it: see `compiler.built_stages`."""

    @property
    def stage(self) -> str: ...
    @property
    def told(self) -> Mapping[str, Any]:
        """What the stage was told, by name."""
        ...

    @property
    def digests(self) -> Mapping[str, str]:
        """Of its files."""
        ...

    def velocities(self, inputs: list[dict[str, Array]], folder: Path) -> list[Array]:
        """What it computes of each of the inputs; `folder` is made, and may be written to."""
        ...


Build = Callable[[str], Iterable[StageResult]]
"""What the stages of a bundle's build made of a component, in their order, which begins with the same one in all."""


class StageDifference(DocumentPart):
    """What a stage of the new bundle made of a component, beside the same stage of the baseline.

    Errors are those of velocities against the reference, `difference` is between the two; all are relative. Where the
    files are the same nothing was executed. `told` are the names of what the stage was told otherwise: its parameters,
    `code`, or tools; None where only one of the two builds has the stage.
    """

    component: str
    stage: str
    is_same: bool
    difference: float | None
    error: float | None
    baseline_error: float | None
    told: list[str] | None


class Bisection(DocumentPart):
    """The stages in the order of execution, and the first that brought a change, if one did."""

    new: str
    baseline: str
    noise: float
    stages: list[StageDifference]
    first: StageDifference | None

    @property
    def summary(self) -> str:
        if self.first is None:
            return f"No stage of {self.new} brought a change of what denoisers compute."
        component, stage = self.first.component, self.first.stage
        told = f", which was told otherwise: {', '.join(self.first.told)}" if self.first.told else ""
        return f"The change of {component} comes with the stage {stage}{told}."


def bisect(new: Path, baseline: Path, builds: Sequence[Build], record: ReferenceRecord) -> Bisection:
    """Compare two bundles of one model stage by stage; `builds` are those of both, in their order.

    Raises UserError where they are of different weights, and what `builds` raise.
    """
    mine, theirs = (Subject.open(path, path.name, threads=1) for path in (new, baseline))
    _check_weights(mine, theirs)
    noise = max([LEAST, *(FLOORS * floor.velocity_error for floor in floors(record) if floor.unit == "fp32")])
    found: list[StageDifference] = []
    for component in dict.fromkeys(record.experts):
        states = _States(record, component)
        found += _of_stages(component, builds, states)
        found.append(_of_engines(component, mine, theirs, states))
    first = next((one for one in found if one.difference is not None and one.difference > noise), None)
    return Bisection(new=mine.name, baseline=theirs.name, noise=noise, stages=found, first=first)


class _States:
    """Where an expert is executed: the steps of the reference's first clip that are its own, and were looked into."""

    def __init__(self, record: ReferenceRecord, component: str) -> None:
        clip = record.clips[0]
        self.texts = clip.texts
        steps = [step for step in record.tapped if record.experts[step] == component]
        self.latents = [clip.latents[step] for step in steps]
        self.timesteps = [record.timesteps[step] for step in steps]
        self.expected = [clip.velocities(step)[0] for step in steps]

    @property
    def inputs(self) -> list[dict[str, Array]]:
        return [
            {"latents": latents, TIMESTEP: np.array([timestep], np.float32), "text": self.texts[0]}
            for latents, timestep in zip(self.latents, self.timesteps, strict=True)
        ]

    def executed(self, subject: Subject, component: str) -> list[Array]:
        """What a bundle's own engines give."""
        parts = subject.pipeline.parts(component)
        return [
            Expert(component, 1.0).velocities(parts, latents, timestep, *self.texts)[0]
            for latents, timestep in zip(self.latents, self.timesteps, strict=True)
        ]

    def compared(self, mine: Sequence[Array], theirs: Sequence[Array]) -> dict[str, float]:
        return {
            "difference": _mean(mine, theirs),
            "error": _mean(mine, self.expected),
            "baseline_error": _mean(theirs, self.expected),
        }


def _of_stages(component: str, builds: Sequence[Build], states: _States) -> Iterator[StageDifference]:
    """Where one build has a stage that the other has not, its result stands beside what the other had before it."""
    mine, theirs = ({one.stage: one for one in build(component)} for build in builds)
    before = [next(iter(mine.values())), next(iter(theirs.values()))]
    longer, shorter = sorted((mine, theirs), key=len, reverse=True)
    for stage in [*longer, *(stage for stage in shorter if stage not in longer)]:
        before = [one.get(stage, last) for one, last in zip((mine, theirs), before, strict=True)]
        told = _told(*before) if stage in mine and stage in theirs else None
        if before[0].digests == before[1].digests:
            none = dict.fromkeys(("difference", "error", "baseline_error"))
            yield StageDifference(component=component, stage=stage, is_same=True, **none, told=told)
            continue
        with TemporaryDirectory(prefix="wanc-bisect-") as folder:
            gave = [one.velocities(states.inputs, Path(folder) / str(index)) for index, one in enumerate(before)]
        yield StageDifference(component=component, stage=stage, is_same=False, **states.compared(*gave), told=told)


def _of_engines(component: str, mine: Subject, theirs: Subject, states: _States) -> StageDifference:
    gave = [states.executed(subject, component) for subject in (mine, theirs)]
    facts = [{"engine": one.facts.engine, "compute": one.facts.compute} for one in (mine, theirs)]
    told = [name for name in facts[0] if facts[0][name] != facts[1][name]]
    return StageDifference(component=component, stage=ENGINE, is_same=False, **states.compared(*gave), told=told)


def _told(one: StageResult, other: StageResult) -> list[str]:
    """What one stage was told otherwise than the other."""
    names = sorted({**one.told, **other.told})
    return [name for name in names if one.told.get(name) != other.told.get(name)]


def _check_weights(mine: Subject, theirs: Subject) -> None:
    """Raises UserError where two bundles were built of other weights: then all is other from the first stage on."""
    ours, others = (_weights(subject) for subject in (mine, theirs))
    if other := sorted(name for name in {**ours, **others} if ours.get(name) != others.get(name)):
        raise UserError(
            f"{mine.name} and {theirs.name} were built of different weights: {other[0]} is another file",
            hint="compare bundles of one model",
            exit_code=EXIT_NOT_COMPARABLE,
        )


def _weights(subject: Subject) -> Mapping[str, str]:
    """Digests of the files of weights that a bundle's lock names."""
    inputs = read_sealed(subject.pipeline.bundle.folder, LOCK).object("inputs")
    return {name: inputs.object(name).text("sha256") for name in inputs.values if name.endswith(".safetensors")}


def _mean(found: Sequence[Array], expected: Sequence[Array]) -> float:
    return float(np.mean([relative_error(one, other) for one, other in zip(found, expected, strict=True)]))
