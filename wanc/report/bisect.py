"""Which stage of a build brought a change: what each stage of two builds left is executed at the reference's states,
component by component, in the order in which they work.

A stage whose result is the same in both, or computes the same but for rounding, has brought none; the first other one
has. Engines come last: what the bundles themselves compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from wanc.errors import EXIT_NOT_COMPARABLE, UserError
from wanc.report.component_case import ComponentCase, StageResult, component_cases
from wanc.report.document import DocumentPart
from wanc.report.reference import ReferenceRecord
from wanc.report.statistics import relative_error
from wanc.report.subject import Subject

Array = np.ndarray[Any, Any]
ENGINE = "engine"
Build = Callable[[str], Iterable[StageResult]]
"""What the stages of a bundle's build made of a component, in their order, which begins with the same one in all."""


class StageDifference(DocumentPart):
    """What a stage of the new bundle made of a component, beside the same stage of the baseline.

    Errors are those of text states, velocities or frames against the reference, `difference` is between the two; all
    are relative, and a difference up to `noise` is none. Where the files are the same nothing was executed. `told` are
    the names of what the stage was told otherwise: its parameters, `code`, or tools; None where only one of the two
    builds has the stage.
    """

    component: str
    stage: str
    is_same: bool
    noise: float
    difference: float | None
    error: float | None
    baseline_error: float | None
    told: list[str] | None

    @property
    def is_change(self) -> bool:
        return self.difference is not None and self.difference > self.noise

    @property
    def sentence(self) -> str:
        """That it brought the change of its component."""
        told = f", which was told otherwise: {', '.join(self.told)}" if self.told else ""
        return f"The change of {self.component} comes with the stage {self.stage}{told}."


class Bisection(DocumentPart):
    """The stages of each component in the order of execution, and the first that brought a change, if one did."""

    new: str
    baseline: str
    stages: list[StageDifference]
    first: StageDifference | None

    @property
    def summary(self) -> str:
        """What brought a change to each component."""
        if self.first is None:
            return f"No stage of {self.new} brought a change of what its components compute."
        changed: dict[str, StageDifference] = {}
        for one in self.stages:
            if one.is_change:
                changed.setdefault(one.component, one)
        return "\n".join(one.sentence for one in changed.values())


def bisect(new: Path, baseline: Path, builds: Sequence[Build], record: ReferenceRecord) -> Bisection:
    """Compare two bundles of one model stage by stage; `builds` are those of both, in their order.

    Raises UserError where they are of different weights, and what `builds` raise.
    """
    mine, theirs = (Subject.open(path, path.name, threads=1) for path in (new, baseline))
    _check_weights(mine, theirs)
    found: list[StageDifference] = []
    for case in component_cases(record, mine, theirs):
        found += _of_stages(case, builds)
        found.append(_of_engines(case, mine, theirs))
    first = next((one for one in found if one.is_change), None)
    return Bisection(new=mine.name, baseline=theirs.name, stages=found, first=first)


def _of_stages(case: ComponentCase, builds: Sequence[Build]) -> Iterator[StageDifference]:
    """Where one build has a stage that the other has not, its result stands beside what the other had before it."""
    mine, theirs = ({one.stage: one for one in build(case.component)} for build in builds)
    before = [next(iter(mine.values())), next(iter(theirs.values()))]
    longer, shorter = sorted((mine, theirs), key=len, reverse=True)
    for stage in [*longer, *(stage for stage in shorter if stage not in longer)]:
        before = [one.get(stage, last) for one, last in zip((mine, theirs), before, strict=True)]
        told = _told(*before) if stage in mine and stage in theirs else None
        if before[0].digests == before[1].digests:
            yield _difference(case, stage, None, told)
            continue
        with TemporaryDirectory(prefix="wanc-bisect-") as folder:
            gave = [case.of_stage(one, Path(folder) / str(index)) for index, one in enumerate(before)]
        yield _difference(case, stage, gave, told)


def _of_engines(case: ComponentCase, mine: Subject, theirs: Subject) -> StageDifference:
    gave: list[list[Array]] = []
    for subject in (mine, theirs):
        gave.append(case.of_bundle(subject))
        subject.pipeline.executor.close(case.component)
    facts = [{"engine": one.facts.engine, "compute": one.facts.compute} for one in (mine, theirs)]
    told = [name for name in facts[0] if facts[0][name] != facts[1][name]]
    return _difference(case, ENGINE, gave, told)


def _difference(
    case: ComponentCase, stage: str, gave: Sequence[Sequence[Array]] | None, told: list[str] | None
) -> StageDifference:
    """Of what both gave, the new one first; None where both have the same files."""
    compared: list[float | None] = [None, None, None]
    if gave is not None:
        mine, theirs = gave
        compared = [_mean(mine, theirs), _mean(mine, case.expected), _mean(theirs, case.expected)]
    difference, error, baseline_error = compared
    return StageDifference(
        component=case.component,
        stage=stage,
        is_same=gave is None,
        noise=case.noise,
        difference=difference,
        error=error,
        baseline_error=baseline_error,
        told=told,
    )


def _told(one: StageResult, other: StageResult) -> list[str]:
    """What one stage was told otherwise than the other."""
    names = sorted({**one.told, **other.told})
    return [name for name in names if one.told.get(name) != other.told.get(name)]


def _check_weights(mine: Subject, theirs: Subject) -> None:
    """Raises UserError where two bundles were built of other weights: then all is other from the first stage on."""
    ours, others = mine.weights, theirs.weights
    if other := sorted(name for name in {**ours, **others} if ours.get(name) != others.get(name)):
        raise UserError(
            f"{mine.name} and {theirs.name} were built of different weights: {other[0]} is another file",
            hint="compare bundles of one model",
            exit_code=EXIT_NOT_COMPARABLE,
        )


def _mean(found: Sequence[Array], expected: Sequence[Array]) -> float:
    return float(np.mean([relative_error(one, other) for one, other in zip(found, expected, strict=True)]))
