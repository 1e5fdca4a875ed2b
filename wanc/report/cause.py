"""Where a change begins: the first phase, expert, block and layer of a bundle that is not what the baseline's is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from wanc.report.chunks import last_chunk, part
from wanc.report.document import Branch, Cause, Floor, GateResult, ReportedBundle
from wanc.report.gates import NEGLIGIBLE, PHASES, block_ratios, distance_of, noise
from wanc.report.reference import ReferenceRecord
from wanc.report.statistics import relative_error
from wanc.report.subject import Subject
from wanc.report.weights import changed_weights
from wanc.runtime.denoise import Expert

CLEARLY = 1.05
"""So many times the baseline's error is a change, and no noise."""
FAR = 0.2
"""A velocity that is so far off may be that of another model."""


@dataclass(frozen=True)
class Suspects:
    """Two bundles with what was measured of them. `floor` is that of the format in which the new one computes."""

    subject: Subject
    entry: ReportedBundle
    baseline: Subject | None
    before: ReportedBundle | None
    floor: Floor | None
    record: ReferenceRecord

    def first_cause(self, failed: list[GateResult]) -> Cause | None:
        """What comes first of all that has changed for the worse, in the order of execution; None if nothing is found.

        What was built otherwise is told first: it is no matter of measuring. Without a baseline nothing is known to
        have changed.
        """
        kinds = {gate.kind for gate in failed}
        if self.before is None or self.before.quality is None:
            finders = [self._exchanged]
        elif kinds <= {"speed", "size"}:
            finders = [self._other_scheme, lambda: self._slower(failed)]
        else:
            inside = [self._exchanged, self._guidance, self._block]
            finders = [self._other_scheme, self._text, *inside, self._decoder, self._shown]
        return next((cause for find in finders if (cause := find()) is not None), None)

    def _other_scheme(self) -> Cause | None:
        if self.before is None:
            return None
        mine, theirs = self.entry.facts.schemes, self.before.facts.schemes
        for name, scheme in theirs.items():
            if (now := mine.get(name, "float")) != scheme:
                return Cause(kind="layer", name=name, detail=f"{scheme} in the baseline, {now} in the new bundle")
        return None

    def _slower(self, failed: list[GateResult]) -> Cause | None:
        """Of the phases that a gate is about the one that is slower most; of all, where it is about the whole."""
        if self.before is None or self.entry.speed is None or self.before.speed is None:
            return None
        mine, theirs = self.entry.speed.phases, self.before.speed.phases
        ratios = {
            name: mine[name].median / theirs[name].median for name in mine if theirs.get(name) and theirs[name].median
        }
        asked = {PHASES.get(gate.name, gate.name.partition("_")[0]) for gate in failed}  # `step_seconds` is of steps
        inside = {name: ratio for name, ratio in ratios.items() if name not in ("total", "step")}
        parts = {name: ratio for name, ratio in inside.items() if name.split()[0] in asked or "total" in asked}
        if not parts:
            return None
        name = max(parts, key=parts.__getitem__)
        return Cause(kind="phase", name=name, detail=f"takes {parts[name]:.2f} times as long as the baseline's")

    def _text(self) -> Cause | None:
        return self._grown("text_error", "text", "the text states")

    def _decoder(self) -> Cause | None:
        return self._grown("decoded_psnr_db", "decode", "what the decoder makes of the reference's latents")

    def _grown(self, figure: str, name: str, what: str) -> Cause | None:
        """A phase, if its figure is further from the reference than the baseline's."""
        if self.entry.quality is None:
            return None
        mine = distance_of(figure, self.entry.quality)
        assert self.before is not None and self.before.quality is not None
        theirs = distance_of(figure, self.before.quality)
        if mine <= CLEARLY * theirs + noise(figure, self.floor):
            return None
        return Cause(kind="phase", name=name, detail=f"{what} are {mine:.2g} off, {theirs:.2g} in the baseline")

    def _exchanged(self) -> Cause | None:
        """An expert that is far off at its own states: is it the other one that would be right there?"""
        for step in self.record.tapped if len(set(self.record.experts)) > 1 else ():
            errors = {name: self._error_of(name, step) for name in sorted(set(self.record.experts))}
            timestep = self.record.timesteps[step]
            works, right = self.subject.pipeline.expert_at(timestep).component, min(errors, key=errors.__getitem__)
            if works != right and errors[works] > FAR and errors[right] < errors[works] / 4:
                detail = f"at timestep {timestep:g} {works} works, where {right} is right"
                return Cause(kind="expert", name=works, detail=detail)
        return None

    def _error_of(self, expert: str, step: int) -> float:
        """Of an expert's conditional velocity at a step's state, whoever is to make that step."""
        clip, timestep = self.record.clips[0], self.record.timesteps[step]
        span, parts = last_chunk(self.subject.pipeline, clip)
        latents = part(clip.latents[step], span)
        found = Expert(expert, 1.0).velocities(parts(expert), latents, timestep, *clip.texts)
        return relative_error(found[0], part(clip.velocities(step)[0], span))

    def _guidance(self) -> Cause | None:
        """Branches that are what they were, and what they come to is not."""
        mine, theirs = _by_branch(self.entry), _by_branch(self.before)
        for expert in sorted({expert for expert, _ in mine}):
            single, both = mine[expert, "conditional"], mine[expert, "guided"]
            before, guided = theirs.get((expert, "conditional"), single), theirs.get((expert, "guided"), both)
            if single <= CLEARLY * before + self._slack and both > 2 * guided + self._slack:
                detail = f"the branches of {expert} are {single:.2g} off, and the guided velocity {both:.2g}"
                return Cause(kind="guidance", name=expert, detail=detail)
        return None

    def _block(self) -> Cause | None:
        """The first block of the first step whose error has grown, and in it the first layer of other weights."""
        if self.before is None or self.before.quality is None or self.entry.quality is None:
            return None
        ratios = block_ratios(self.entry.quality.blocks, self.before.quality.blocks, self._slack)
        grown = sorted((step, block, expert) for (expert, block, step), ratio in ratios.items() if ratio > CLEARLY)
        if not grown:
            return None
        _, block, expert = min(grown, key=lambda place: (place[0], place[1]))
        ratio = max(value for (name, number, _), value in ratios.items() if (name, number) == (expert, block))
        detail = f"behind block {block} of {expert} the error is {ratio:.2f} times the baseline's"
        layer = next(self._changed_layers(expert, block), None)
        if layer is not None:
            return Cause(kind="layer", name=f"{expert}/{layer}", detail=f"its weights are others; {detail}")
        return Cause(kind="block", name=f"{expert}/blocks.{block}", detail=detail)

    def _changed_layers(self, component: str, block: int) -> Iterator[str]:
        assert self.baseline is not None
        for name in changed_weights(self.subject, self.baseline, component):
            if name.startswith(f"blocks.{block}."):
                yield re.split(r"\.(?:weight|bias|input)\b", name)[0]

    def _shown(self) -> Cause | None:
        """What is seen of a video, where all before it is right."""
        if self.entry.quality is None:
            return None
        detail = "latents are as they were, and frames no further from the reference's; what is seen of them is other"
        return Cause(kind="phase", name="decode", detail=detail)

    @property
    def _slack(self) -> float:
        return max(NEGLIGIBLE, self.floor.velocity_error if self.floor else 0.0)


def _by_branch(entry: ReportedBundle | None) -> Mapping[tuple[str, Branch], float]:
    """The mean error of each expert's velocities."""
    steps = entry.quality.steps if entry and entry.quality else []
    errors: dict[tuple[str, Branch], list[float]] = defaultdict(list)
    for step in steps:
        errors[step.expert, step.branch].append(step.error)
    return {key: float(np.mean(found)) for key, found in errors.items()}
