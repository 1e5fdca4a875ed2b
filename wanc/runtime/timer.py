"""How long each phase of a run took."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from .events import span


@dataclass
class Timer:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def phase(self, name: str) -> Generator[None]:
        started = time.perf_counter()
        try:
            with span(name):
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count what another timer has measured."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value


def shown_seconds(seconds: Mapping[str, float]) -> str:
    """verify 0.1 s, denoise 2.3 s"""
    return ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
