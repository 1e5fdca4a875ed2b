"""Times that others have published for Wan2.2-T2V-A14B, to stand beside predictions. None was measured by wanc."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Seconds of one video alone, by whom; a `kind` that wanc has no data of is there for comparison only."""

    source: str
    kind: str
    count: int
    height: int
    width: int
    frames: int
    steps: int
    seconds: float

    @property
    def devices(self) -> str:
        return f"{self.count}×{self.kind}"


WAN = "Wan2.2, computational efficiency"
MLPERF = "MLPerf Inference, text-to-video, closed, single stream"
SMALL, LARGE = (480, 832, 81), (720, 1280, 81)
PUBLISHED = (
    *(Published(WAN, "a100-80g", n, *SMALL, 40, s) for n, s in ((1, 785.7), (4, 215.2), (8, 119.9))),
    *(Published(WAN, "a100-80g", n, *LARGE, 40, s) for n, s in ((1, 2735.7), (4, 725.3), (8, 386.7))),
    *(Published(WAN, "h100", n, *SMALL, 40, s) for n, s in ((1, 326.9), (4, 91.7), (8, 51.5))),
    *(Published(WAN, "h100", n, *LARGE, 40, s) for n, s in ((1, 1041.5), (4, 288.7), (8, 155.1))),
    Published(MLPERF, "h200", 8, *LARGE, 20, 57.4),
    Published(MLPERF, "b200", 8, *LARGE, 20, 25.5),
    Published(MLPERF, "mi355x", 8, *LARGE, 20, 16.1),
)


def published_for(shape: tuple[int, int, int], steps: int, kinds: frozenset[str]) -> Iterator[Published]:
    """What was published of this many steps at this size: of these kinds of devices, and all of a benchmark."""
    for entry in PUBLISHED:
        is_alike = (entry.height, entry.width, entry.frames) == shape and entry.steps == steps
        if is_alike and (entry.kind in kinds or entry.source == MLPERF):
            yield entry
