"""How a case went, why it was refused, and whether two sets of arrays are equal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

EQUAL, UNSUPPORTED, REFUSED, WRONG, TRACEBACK = CATEGORIES = ("equal", "unsupported", "refused", "wrong", "traceback")
"""Unsupported is what plain onnxruntime does not execute, and what wanc refuses."""

REASONS: Mapping[str, str] = {
    "wanc folded it": r"holds \d+ values? that (is|are) not finite",
    "no kernel for what wanc fused": r"asks for \d+ fused",
    "an input or output of a type that .npz files do not have": r"which an \.npz file cannot hold",
    "an input or output that is no tensor": r"is an? (sequence|optional|map), not a tensor",
    "operators older than opset 7": r"version \d of the operators of ONNX",
    "a domain that onnxruntime does not have": r"which onnxruntime does not have",
    "openvino computes it otherwise": r"openvino (computes|gives|takes)",
    "openvino gives nothing for empty arrays": r"no results for empty arrays",
    "the engine cannot load it": r"cannot load this graph",
    "the engine fails on these inputs": r"does not run at the sizes",
}
"""Why a case was refused, by what is said of it; the first that fits."""
OWN_FAULTS = ("wanc folded it", "no kernel for what wanc fused")
"""Those whose cause is wanc itself."""

RELATIVE_TO_LARGEST = 1e-5
"""How far a float may be off, as a part of the largest: what sums to nothing leaves some rounding."""
ONE_CODE = 1
"""How far a quantised number may be off, where another engine divides by a scale."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case on one engine: one of `CATEGORIES`, and what was said, or differs."""

    case: str
    category: str
    detail: str = ""

    @property
    def reason(self) -> str:
        """Why it was refused: a key of `REASONS`. Raises ValueError for what none of them is about."""
        for reason, pattern in REASONS.items():
            if re.search(pattern, self.detail):
                return reason
        raise ValueError(f"{self.case} is refused for a reason without a name: {self.detail}")


def difference(
    actual: Mapping[str, Any], expected: Mapping[str, Any], rtol: float, atol: float, codes: int = 0
) -> str | None:
    """Where two sets of outputs differ: in names, dtypes, shapes, or values, of which codes may be off by `codes`."""
    if list(actual) != list(expected):
        return f"outputs {list(actual)}, not {list(expected)}"
    found = (_difference(actual[name], expected[name], rtol, atol, codes) for name in expected)
    return next((f"{name}: {what}" for name, what in zip(expected, found, strict=True) if what), None)


def _difference(actual: Any, expected: Any, rtol: float, atol: float, codes: int) -> str | None:
    if not isinstance(expected, np.ndarray):
        return None if str(actual) == str(expected) else "another value"
    if (actual.dtype, actual.shape) != (expected.dtype, expected.shape):
        return f"{actual.dtype} {actual.shape}, not {expected.dtype} {expected.shape}"
    try:
        if expected.dtype.kind == "f":
            largest = float(np.max(np.abs(expected), where=np.isfinite(expected), initial=0))
            np.testing.assert_allclose(actual, expected, rtol, max(atol, RELATIVE_TO_LARGEST * largest))
        elif expected.dtype.kind in "iu" and codes:
            np.testing.assert_allclose(actual.astype(np.int64), expected.astype(np.int64), 0, codes)
        else:
            np.testing.assert_array_equal(actual, expected)
    except AssertionError as error:
        return " ".join(str(error).split())
    return None
