"""What of a bundle can be compared by name: its metrics, its times, its sizes; and how many noise floors that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wanc.report.document import BlockError, Estimate, Floor, Outcome, ReportDocument, ReportedBundle, StepError

VELOCITY_ERROR = "velocity_error"
METRICS = (VELOCITY_ERROR, "psnr", "psnr_db", "ssim", "ms_ssim", "cosine")
"""Those that come first, in this order."""
PHASES = (
    "total",
    "first_frame",
    "open",
    "denoise",
    "first_chunk",
    "early_chunk",
    "late_chunk",
    "first_step",
    "text",
    "step denoiser_high",
    "step denoiser_low",
    "switch",
    "decode",
    "encode",
)
SEVERITY: tuple[Outcome, ...] = ("infrastructure-error", "regression", "needs-calibration", "not-comparable", "pass")
SIMILARITIES = ("cosine", "ssim")


def in_order(names: Iterable[str], first: tuple[str, ...]) -> list[str]:
    """The names, each once: those of `first` in its order, then the others by the alphabet."""
    return sorted(set(names), key=lambda name: (first.index(name) if name in first else len(first), name))


def metrics(report: ReportDocument) -> list[str]:
    """All that any bundle's quality is measured by."""
    return in_order((name for entry in report.bundles if entry.quality for name in entry.quality.summary), METRICS)


def phases(report: ReportDocument) -> list[str]:
    """All that any bundle's time was taken of."""
    return in_order((name for entry in report.bundles if entry.speed for name in entry.speed.phases), PHASES)


def experts_of(errors: Sequence[StepError] | Sequence[BlockError]) -> list[str]:
    """The experts that errors are of, in their order."""
    return list(dict.fromkeys(one.expert for one in errors))


def estimate(entry: ReportedBundle, metric: str) -> Estimate | None:
    """What a bundle's metric comes to over all clips."""
    return entry.quality.summary.get(metric) if entry.quality else None


def value_of(entry: ReportedBundle, name: str) -> float | None:
    """What is known under that name: a metric's mean, a phase's median, or a field of its speed or of its facts."""
    if found := estimate(entry, name):
        return found.mean
    if entry.speed and (times := entry.speed.phases.get(name.removesuffix("_seconds"))):
        return times.median
    value = getattr(entry.speed, name, None) or getattr(entry.facts, name, None)
    return value if isinstance(value, (int, float)) else None


def baseline_of(report: ReportDocument) -> ReportedBundle | None:
    """The bundle that the others are compared with, where there is one."""
    return next((entry for entry in report.bundles if entry.name == report.baseline), None)


def floors_of(report: ReportDocument) -> list[Floor]:
    """The noise floors that were measured."""
    return report.reference.floors if report.reference else []


def floor_value(floor: Floor, metric: str) -> float | None:
    """What a metric is at the floor."""
    if metric == VELOCITY_ERROR:
        return floor.velocity_error
    return floor.summary[metric].mean if metric in floor.summary else None


def multiple(metric: str, value: float, floor: float) -> float | None:
    """How many times as far from the reference as the floor is; None where a metric has no distance.

    Decibels are of amplitudes, so that 20 dB less are ten times as far. How far a similarity is, is what it lacks to 1.
    """
    words = metric.split("_")
    if "db" in words or "psnr" in words:
        return 10 ** ((floor - value) / 20)
    if any(word in SIMILARITIES for word in words):
        return (1 - value) / (1 - floor) if floor < 1 else None
    return value / floor if "error" in words and floor > 0 else None


def worst(outcomes: Iterable[Outcome]) -> Outcome | None:
    """The one that counts of several."""
    return min(outcomes, key=SEVERITY.index, default=None)
