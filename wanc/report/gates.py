"""What is demanded of a bundle, and whether it holds.

Of what is measured against the reference, multiples are of distances (see `recipe.gates`). A distance that is no
larger than the noise floor's is none: so much is allowed beside a multiple of the baseline's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from wanc.recipe.gates import EXTERNAL, MEAN, Demand, is_external, kind_of
from wanc.report.document import BlockError, Floor, GateResult, Outcome, Quality, ReportedBundle, Times
from wanc.report.metrics.video import METRICS
from wanc.report.prompt_agreement import PROMPT_AGREEMENT

DEFAULTS: Mapping[str, str] = {
    "velocity_error": "<= 1.05 baseline",
    "block_error": "<= 1.05 baseline",
    "text_error": "<= 1.05 baseline",
    "decoded_psnr_db": "<= 1.05 baseline",
    "psnr_db": "<= 1.5 baseline",
    "vmaf": "<= 1.5 baseline",
    "repeated_frames": "<= 1 baseline",
    "motion_ratio": "<= 1.5 baseline",
    "colour_shift_delta_e": "<= 1.5 baseline",
    "step_seconds": "<= 1.03 baseline",
    "decode_seconds": "<= 1.1 baseline",
    "peak_rss_bytes": "<= 1.1 baseline",
    "size_bytes": "<= 1.05 baseline",
    "int8_linear_share": ">= 1 baseline",
}
"""What is demanded beside a baseline where nobody says otherwise: teacher-forced figures have little noise, those of
whole videos more.
"""
PHASES: Mapping[str, str] = {
    "open_seconds": "open",
    "text_seconds": "text",
    "decode_seconds": "decode",
    "first_frame_seconds": "first_frame",
    "total_seconds": "total",
}
DECIBELS = ("psnr_db", "xpsnr_db", "decoded_psnr_db", "chunk_psnr_db", "sqnr_db", "chunk_sqnr_db")
ERRORS = ("velocity_error", "chunk_velocity_error", "text_error")
PERFECT: Mapping[str, float] = {"cosine": 1.0, PROMPT_AGREEMENT: 1.0}
UNITS: Mapping[str, str] = {
    "speed": "s",
    "velocity_error": "",
    "chunk_velocity_error": "",
    PROMPT_AGREEMENT: "share",
    "size_bytes": "bytes",
    "peak_rss_bytes": "bytes",
    f"{EXTERNAL}{MEAN}": "percent",
}
NEGLIGIBLE = 1e-6
"""Of a distance: less than float32 tells apart."""
RESOLUTION: Mapping[str, float] = {
    **dict.fromkeys(DECIBELS[:4], 1e-4),
    "ssim": 1e-4,
    "ms_ssim": 1e-4,
    "vmaf": 0.1,
    "flicker_ratio": 0.01,
    "motion_ratio": 0.01,
    "motion_direction_degrees": 1.0,
    "colour_shift_delta_e": 0.01,
    "saturation_shift": 0.001,
    "brightness_shift": 0.001,
}
"""Distances that are none in pictures of whole grey levels: one value in a thousand that is rounded to the next level
makes them, and nobody sees them.
"""


def distance(name: str, value: float) -> float:
    """How far from the reference or the prompt a figure says that a video is, growing with the error: 0 at best."""
    if name in DECIBELS:
        return 10 ** (-value / 20)
    if name in ERRORS:
        return value
    return abs(value - (METRICS[name].identical if name in METRICS else PERFECT[name]))


@dataclass(frozen=True)
class Judge:
    """Judges one bundle; `baseline` is None where there is none to compare with, `detector` where no card names one."""

    entry: ReportedBundle
    baseline: ReportedBundle | None
    floors: Sequence[Floor]
    detector: str | None = None

    def judge(self, gates: Mapping[str, str]) -> list[GateResult]:
        """One result for each gate, those of a baseline only where there is one; and the invariants."""
        results = [self._judge(name, Demand.parse(text)) for name, text in gates.items()]
        return [*self._invariants(), *(result for result in results if result is not None)]

    def _judge(self, name: str, demand: Demand) -> GateResult | None:
        if is_external(name):
            return self._of_outside(name, demand)
        kind = kind_of(name)
        if (demand.of == "baseline" or name == "step_speedup") and self.baseline is None:
            return None
        if kind == "quality":
            return self._of_quality(name, demand)
        return self._of_steps(name, demand) if name in ("step_seconds", "step_speedup") else self._plain(name, demand)

    def _of_quality(self, name: str, demand: Demand) -> GateResult:
        if self.entry.quality is None:
            return self._result(name, demand, None, None, "infrastructure-error", self.entry.failure or "not measured")
        if name == "block_error":
            return self._of_blocks(demand)
        if name == PROMPT_AGREEMENT and name not in self.entry.quality.summary:
            return self._unseen(name, demand)
        if name not in self.entry.quality.summary:
            reason = "its model makes all frames at once, and has no chunks"
            return self._result(name, demand, None, None, "not-comparable", reason)
        value = self.entry.quality.summary[name].mean
        if demand.of == "value":
            return self._compared(name, demand, value, demand.number)
        floor = self._floor
        if demand.of == "floors":
            if floor is None or name not in floor.summary:
                reason = "no noise floor was measured: set evaluate.draws to 1 or more"
                return self._result(name, demand, value, None, "needs-calibration", reason)
            bound = demand.number * noise(name, floor)
            return self._compared(name, demand, distance_of(name, self.entry.quality), bound)
        assert self.baseline is not None
        if self.baseline.quality is None:
            return self._result(name, demand, value, None, "not-comparable", self._not_measured)
        bound = demand.number * distance_of(name, self.baseline.quality) + self._slack(name)
        return self._compared(name, demand, distance_of(name, self.entry.quality), bound)

    @property
    def _not_measured(self) -> str:
        """Why there is nothing of the baseline."""
        why = self.baseline.failure if self.baseline else None
        return f"the baseline was not measured: {why}" if why else "the baseline was not measured"

    def _unseen(self, name: str, demand: Demand) -> GateResult:
        """Nothing is known of what the videos show, and nothing is broken."""
        none = "the model card names no detector that wanc knows"
        reason = f"no prompt names anything that {self.detector} knows" if self.detector else none
        return self._result(name, demand, None, None, "needs-calibration", reason)

    def _of_blocks(self, demand: Demand) -> GateResult:
        """The largest ratio of a block's error to that of the baseline's same block."""
        assert self.entry.quality is not None and self.baseline is not None
        before = self.baseline.quality.blocks if self.baseline.quality else []
        ratios = block_ratios(self.entry.quality.blocks, before, self._slack("velocity_error"))
        if self.baseline.quality is None:
            return self._result("block_error", demand, None, None, "not-comparable", self._not_measured)
        if not ratios:
            reason = "the engines of one of the two do not show what goes from block to block"
            return self._result("block_error", demand, None, None, "not-comparable", reason)
        return self._compared("block_error", demand, max(ratios.values()), demand.number)

    def _of_steps(self, name: str, demand: Demand) -> GateResult:
        """A step is slower only where that is sure: where the bounds of the pairs' ratio say so as well."""
        ratios = [ratio for ratio in self.entry.ratios if ratio.phase == "step"]
        if demand.of == "value" and name == "step_seconds":
            return self._plain(name, demand)
        if not ratios and self.baseline is not None and self.baseline.failure:
            return self._result(name, demand, None, None, "not-comparable", self._not_measured)
        if not ratios:
            return self._result(name, demand, None, None, "infrastructure-error", "no steps were timed in turn")
        (ratio,) = ratios
        is_speedup = name == "step_speedup"
        value, surely = (1 / ratio.ratio, 1 / ratio.low) if is_speedup else (ratio.ratio, ratio.low)
        holds = demand.holds(value, demand.number) or (demand.holds(surely, 1.0) and not is_speedup)
        text = f"{value:.3f} times, of {ratio.pairs} pairs between {ratio.low:.3f} and {ratio.high:.3f}"
        return self._result(name, demand, value, demand.number, "pass" if holds else "regression", text)

    def _plain(self, name: str, demand: Demand) -> GateResult:
        value = _figure(name, self.entry)
        if value is None:
            return self._result(name, demand, None, None, "infrastructure-error", "not measured")
        if demand.of == "value":
            return self._compared(name, demand, value, demand.number)
        assert self.baseline is not None
        if name == "int8_linear_share":
            value = least_share(self.entry, self.baseline)
            return self._compared(name, demand, value, demand.number)
        before = _figure(name, self.baseline)
        if before is None:
            return self._result(name, demand, value, None, "not-comparable", self._not_measured)
        return self._compared(name, demand, value, demand.number * before)

    def _of_outside(self, name: str, demand: Demand) -> GateResult:
        """Scores come after the videos that they are of: without them nothing is broken, and nothing is known."""
        scores, wanted = self.entry.external, name.removeprefix(EXTERNAL)
        if scores is None:
            reason = "no scores of its videos were given: wanc report --scores FILE"
            return self._result(name, demand, None, None, "needs-calibration", reason)
        value = scores.mean_percent if wanted == MEAN else scores.dimensions.get(wanted)
        if value is None:
            near = get_close_matches(wanted, scores.dimensions, n=1)
            reason = f"{scores.source} has no {wanted}" + (f"; did you mean {EXTERNAL}{near[0]}?" if near else "")
            return self._result(name, demand, None, None, "needs-calibration", reason)
        return self._compared(name, demand, value, demand.number, digits=6)

    def _invariants(self) -> list[GateResult]:
        invariants = self.entry.quality.invariants if self.entry.quality else []
        return [
            GateResult(
                name=entry.name,
                bundle=self.entry.name,
                demand="holds",
                kind="exact",
                value=None,
                bound=None,
                unit="",
                outcome="pass" if entry.holds else "regression",
                reason=entry.detail,
            )
            for entry in invariants
            if entry.holds is not None
        ]

    @property
    def _floor(self) -> Floor | None:
        return floor_of(self.entry, self.floors)

    def _slack(self, name: str) -> float:
        return noise(name, self._floor)

    def _compared(self, name: str, demand: Demand, value: float, bound: float, digits: int = 4) -> GateResult:
        holds = demand.holds(value, bound)
        sign = ">=" if demand.is_least else "<="
        text = f"{value:.{digits}g} {'' if holds else 'is not '}{sign} {bound:.{digits}g}"
        return self._result(name, demand, value, bound, "pass" if holds else "regression", text)

    def _result(
        self, name: str, demand: Demand, value: float | None, bound: float | None, outcome: Outcome, reason: str
    ) -> GateResult:
        kind = kind_of(name)
        unit = UNITS.get(name) or (UNITS["speed"] if kind == "speed" and name.endswith("_seconds") else "")
        return GateResult(
            name=name,
            bundle=self.entry.name,
            demand=demand.text,
            kind=kind,
            value=value,
            bound=bound,
            unit=unit,
            outcome=outcome,
            reason=reason,
        )


def floor_of(entry: ReportedBundle, floors: Sequence[Floor]) -> Floor | None:
    """The noise floor of the format that a bundle computes in; None where it was not measured."""
    unit = "bf16" if entry.facts.compute == "bf16" else "fp32"
    return next((floor for floor in floors if floor.unit == unit), None)


def distance_of(name: str, quality: Quality) -> float:
    """How far from the reference a bundle's videos are by one figure, on average.

    Of figures that may lie on either side each clip counts: one that is slower does not make up for one that is faster.
    """
    if name in METRICS and METRICS[name].better == "nearer" and quality.videos:
        return sum(distance(name, video[name]) for video in quality.videos) / len(quality.videos)
    return distance(name, quality.summary[name].mean)


def noise(name: str, floor: Floor | None) -> float:
    """How far from the reference a figure may be by chance.

    That is where the bounds of the floor's mean are furthest: a ratio that is above 1 as often as below it is 1 on
    average, and far from it each time.
    """
    least = RESOLUTION.get(name, NEGLIGIBLE)
    if floor is None or name not in floor.summary:
        return least
    known = floor.summary[name]
    return max(least, *(distance(name, value) for value in (known.low, known.mean, known.high)))


def block_ratios(
    blocks: Sequence[BlockError], before: Sequence[BlockError], slack: float
) -> dict[tuple[str, int, int], float]:
    """By expert, block and step, how many times as large an error is as the baseline's and the floor's together."""
    known = {(entry.expert, entry.block, entry.step): entry.error for entry in before}
    return {
        key: entry.error / (known[key] + slack)
        for entry in blocks
        if (key := (entry.expert, entry.block, entry.step)) in known
    }


def least_share(entry: ReportedBundle, baseline: ReportedBundle) -> float:
    """Of all components the least that is left of the baseline's share of INT8."""
    shares, before = entry.facts.int8_linear_share, baseline.facts.int8_linear_share
    return min((shares.get(name, 0.0) / share for name, share in before.items() if share), default=1.0)


def _figure(name: str, entry: ReportedBundle) -> float | None:
    if name == "size_bytes":
        return float(entry.facts.size_bytes)
    if name == "int8_linear_share":
        return min((share for share in entry.facts.int8_linear_share.values() if share), default=0.0)
    if entry.speed is None:
        return None
    if name == "peak_rss_bytes":
        return float(entry.speed.peak_rss_bytes)
    if name == "step_seconds":
        steps = [times for phase, times in entry.speed.phases.items() if phase.startswith("step ")]
        return max((times.median for times in steps), default=None)
    times: Times | None = entry.speed.phases.get(PHASES[name])
    return times.median if times else None
