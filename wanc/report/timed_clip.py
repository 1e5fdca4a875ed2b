"""What is told of a video file that a bundle has made, and its process's memory meanwhile."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from wanc.runtime.memory import rss_bytes

Sample = tuple[float, int, str]
"""Of memory: seconds since the clip was begun, bytes, and the phase."""
EVERY_SECONDS = 0.02


@dataclass(frozen=True)
class TimedClip:
    """A video file that was made: seconds by phase, the memory on the way, and how many frames it has."""

    phases: dict[str, float]
    memory: list[Sample]
    frames: int


@dataclass
class MemoryWatch:
    """Looks at the memory of this process now and then, in a thread of its own, for the length of a `with`."""

    phase: str = ""
    samples: list[Sample] = field(default_factory=list[Sample])

    def __enter__(self) -> MemoryWatch:
        self._end, self._started = threading.Event(), time.perf_counter()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(EVERY_SECONDS):
            self.samples.append((time.perf_counter() - self._started, rss_bytes(), self.phase))
