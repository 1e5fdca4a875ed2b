"""What an engine gives is what the bundle says of it, or an error that names both."""

from __future__ import annotations

import numpy as np
import pytest

from wanc.runtime.errors import TargetError
from wanc.runtime.value import Value, expect


def test_what_is_expected_is_handed_on() -> None:
    array = np.zeros((1, 3, 4), np.float32)
    assert expect(Value(array), "frames", (1, 3, None)) is array


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((1, 3, 4)), r"float64 \[1, 3, 4\]"),
        (np.zeros((1, 3, 4), np.int64), r"int64 \[1, 3, 4\]"),
        (np.zeros((1, 4, 3), np.float32), r"float32 \[1, 4, 3\]"),
        (np.zeros((1, 3), np.float32), r"float32 \[1, 3\]"),
        (np.zeros((), np.float32), r"float32 \[\]"),
    ],
)
def test_what_is_not_is_refused(array: np.ndarray, found: str) -> None:
    with pytest.raises(TargetError, match=rf"an engine gives frames as {found}, not float32 \[1, 3, \?\]"):
        expect(Value(array), "frames", (1, 3, None))
