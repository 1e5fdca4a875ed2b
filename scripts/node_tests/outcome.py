"""How a case went, and which of two arrays are equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

EQUAL, RANDOM, UNSUPPORTED, REFUSED, WRONG, TRACEBACK = CATEGORIES = (
    "equal", "random", "unsupported", "refused", "wrong", "traceback",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a case on one engine: one of `CATEGORIES`, and what was said, or differs."""

    case: str
    category: str
    detail: str = ""


def difference(actual: Mapping[str, Any], expected: Mapping[str, Any], rtol: float, atol: float) -> str | None:
    """Where two sets of outputs differ, by name; None where they do in nothing."""
    if list(actual) != list(expected):
        return f"outputs {list(actual)}, not {list(expected)}"
    found = (_difference(actual[name], expected[name], rtol, atol) for name in expected)
    return next((f"{name}: {what}" for name, what in zip(expected, found, strict=True) if what), None)


def _difference(actual: Any, expected: Any, rtol: float, atol: float) -> str | None:
    if not isinstance(expected, np.ndarray):
        return None if str(actual) == str(expected) else "another value"
    if (actual.dtype, actual.shape) != (expected.dtype, expected.shape):
        return f"{actual.dtype} {actual.shape}, not {expected.dtype} {expected.shape}"
    try:
        if expected.dtype.kind in "OU":
            np.testing.assert_array_equal(actual, expected)
        else:
            np.testing.assert_allclose(actual, expected, rtol, atol)
    except AssertionError as error:
        return " ".join(str(error).split())
    return None
