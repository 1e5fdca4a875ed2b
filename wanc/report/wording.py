"""How outcomes, numbers and their units are written: the same in HTML, Markdown and JUnit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wanc.report.document import Estimate, GateResult, Outcome, Ratio, Times

NOT_MEASURED = "not measured"
DAY = len("2026-01-31")


@dataclass(frozen=True)
class OutcomeWords:
    """What an outcome is called, and what it means for a bundle that is to ship. The icon is never alone."""

    icon: str
    word: str
    headline: str


OUTCOMES: Mapping[Outcome, OutcomeWords] = {
    "pass": OutcomeWords("✔", "pass", "May ship"),
    "regression": OutcomeWords("✖", "regression", "Must not ship: regression"),
    "needs-calibration": OutcomeWords("?", "needs calibration", "No verdict: needs calibration"),
    "not-comparable": OutcomeWords("≠", "not comparable", "No verdict: not comparable"),
    "infrastructure-error": OutcomeWords("!", "infrastructure error", "No verdict: infrastructure error"),
}

LABELS: Mapping[str, str] = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "ms": "MS",
    "sqnr": "SQNR",
    "rss": "memory",
    "int8": "INT8",
}
UNITS: Mapping[str, str] = {"db": "dB", "seconds": "s", "bytes": "bytes", "share": "share", "total": "s"}
"""Endings of names that say in what a value is measured."""
SHARES = ("prompt_agreement",)
"""Names of shares that do not say so."""

LOWER = ("error", "seconds", "bytes", "total", "rss")
HIGHER = ("psnr", "ssim", "sqnr", "cosine", "agreement", "videos")


def label(name: str) -> str:
    """A metric's or a phase's name for people: `psnr_db` is PSNR."""
    words = name.split("_")
    if len(words) > 1 and words[-1] in UNITS:
        words.pop()
    return " ".join(LABELS.get(word, word) for word in words).replace("MS SSIM", "MS-SSIM")


def unit_of(name: str) -> str:
    """Of a metric, by its name; nothing where that does not say."""
    return "share" if name in SHARES else UNITS.get(name.rpartition("_")[2], "")


def better(name: str) -> Literal["lower", "higher"] | None:
    """Which way a metric gets better, where its name says so."""
    words = name.replace("_", " ").split()
    if any(word in LOWER for word in words):
        return "lower"
    return "higher" if any(word in HIGHER for word in words) else None


def number(value: float, digits: int = 4) -> str:
    """So many significant digits, and all of them before the point; of what is nearly 1, two of what it lacks."""
    if 0.99 < value < 1:
        places = min(15, 1 - math.floor(math.log10(1 - value)))
        return f"{value:.{places}f}".rstrip("0").removesuffix(".")
    return f"{value:.0f}" if 10**digits <= abs(value) < 1e6 else f"{value:.{digits}g}"


def times(value: float) -> str:
    """How many times something else it is."""
    return f"{number(value, 3)}×"


def quantity(value: float | None, unit: str = "") -> str:
    """A number with its unit: `38.21 dB`, `1.5 GiB` for bytes, `97.3%` for a share."""
    if value is None:
        return NOT_MEASURED
    if unit == "bytes":
        return _size(value)
    if unit == "share":
        return f"{value:.1%}"
    return times(value) if unit == "×" else f"{number(value)}{'' if unit in ('', '%') else ' '}{unit}"


def _size(count: float) -> str:
    size, unit = count, "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024:
            break
        size, unit = size / 1024, larger
    return f"{number(size)} {unit}"


def interval(estimate: Estimate, unit: str = "") -> str:
    """A mean and its bounds, which are shares where that is one."""
    if unit == "share":
        return f"{quantity(estimate.mean, unit)} [{quantity(estimate.low, unit)}, {quantity(estimate.high, unit)}]"
    return f"{quantity(estimate.mean, unit)} [{number(estimate.low)}, {number(estimate.high)}]"


def spread(found: Times) -> str:
    """A median, and where most of the rounds lie."""
    return f"{quantity(found.median, 's')} ({number(found.low)}–{number(found.high)})"


def ratio(found: Ratio) -> str:
    """How many times as long, and its bounds."""
    return f"{times(found.ratio)} [{number(found.low, 3)}, {number(found.high, 3)}]"


def gate_value(gate: GateResult) -> str:
    """What a gate found, in its unit; a dash where it looks at no number."""
    return "–" if gate.kind == "exact" and gate.value is None else quantity(gate.value, gate.unit)


def gate_bound(gate: GateResult) -> str:
    """What the demand comes to, in the same unit; a dash where there is nothing to compare with."""
    return "–" if gate.bound is None else quantity(gate.bound, gate.unit)


def day(time: str) -> str:
    """The date of a moment in ISO 8601."""
    return time[:DAY]


def shortened(text: str, most: int) -> str:
    """At most so many characters, for places that hold no more."""
    return text if len(text) <= most else text[: most - 1] + "…"
