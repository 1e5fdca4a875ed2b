"""What is committed of the outcomes: how many cases are equal, and by name all that are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from .outcome import CATEGORIES, EQUAL, Outcome


def summary(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """The number of each category, and of the cases that are not equal the names, refused ones by their reason."""
    found = list(outcomes)
    counts = Counter(outcome.category for outcome in found)
    named: dict[str, dict[str, list[str]]] = {}
    for outcome in found:
        if outcome.category != EQUAL:
            named.setdefault(outcome.category, {}).setdefault(_reason(outcome), []).append(outcome.case)
    reasons = {category: dict(sorted(entries.items())) for category, entries in sorted(named.items())}
    return {**{category: counts[category] for category in CATEGORIES}, "cases": reasons}


def expected(engine: dict[str, Any]) -> dict[str, str]:
    """The category of each case that is not equal, as an engine's part of the record has it."""
    return {
        case: category for category, entries in engine["cases"].items() for cases in entries.values() for case in cases
    }


def _reason(outcome: Outcome) -> str:
    return outcome.reason if outcome.category in ("refused", "unsupported") else outcome.detail.strip().splitlines()[-1]
