"""Lines on stderr that say how far a long measurement is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")


def counted(items: Iterable[T], total: int, name: str) -> Iterator[T]:
    """Pass ``items`` on, and say now and then how many of ``total`` there were and how long the others will take."""
    begun = printed = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - printed > SECONDS_BETWEEN_LINES or count == total:
            left = (now - begun) / count * (total - count)
            print(f"{count}/{total} {name}, {left:.0f} s left", file=sys.stderr, flush=True)
            printed = now
