"""What a run has cost, as every task's report says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .executor import Executor
from .memory import peak_rss_bytes
from .timer import Timer, shown_seconds


@dataclass(frozen=True)
class RunCost:
    """Seconds by phase, the most memory that the process has held, and what each graph has counted."""

    seconds: Mapping[str, float]
    peak_rss_bytes: int
    counters: Mapping[str, Mapping[str, int | float]]

    @classmethod
    def so_far(cls, timer: Timer, executor: Executor) -> RunCost:
        """What this process has spent until now."""
        return cls(timer.seconds, peak_rss_bytes(), executor.counters())

    def as_json(self) -> dict[str, Any]:
        """The counters are `<component>/<graph>.<counter>` → its value."""
        flat = {f"{graph}.{name}": value for graph, counter in self.counters.items() for name, value in counter.items()}
        return {"seconds": self.seconds, "peak_rss_bytes": self.peak_rss_bytes, "counters": flat}

    def __str__(self) -> str:
        return f"{shown_seconds(self.seconds)}; peak memory {self.peak_rss_bytes / 2**20:.0f} MiB"
