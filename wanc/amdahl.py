"""How much faster a whole becomes when a part of it does (G. M. Amdahl, 1967)."""

from __future__ import annotations

EIGHT_BIT_SPEED = 2.0
"""Products of 8-bit numbers are at most so many times as fast as those of 16-bit ones."""


def at_most(share: float, times: float = EIGHT_BIT_SPEED) -> float:
    """How many times as fast the whole becomes at most, where a share of it, from 0 to 1, becomes `times` as fast."""
    return 1 / (1 - share * (1 - 1 / times))
