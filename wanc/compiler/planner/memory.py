"""The bytes that a device needs for a segment of a row, by phase.

What stays: weights, the keys and values of all requests in flight, what waits in front of the segment. What comes and
goes: activations, of which those of one phase are alive at a time, because a device does one thing at a time.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wanc.compiler.planner.row import PHASES, Phase, Row, RowPart

Bytes = NDArray[np.int64]
# The library's context, handles and kernels' workspaces, and what an allocator cannot use.
WORKSPACE = 3 * 2**29
# A streamed part is executed while the next one arrives.
STREAMED_AT_ONCE = 2


class Footprint:
    """Bytes on one rank of a group of `ranks` devices, for any segment of a row.

    `rank` is the first (0) or the last (-1) of the group; those between need no more than these.
    """

    def __init__(self, row: Row, ranks: int = 1, rank: Literal[0, -1] = 0) -> None:
        self._row = row
        self._ranks = ranks
        self._held = [part if ranks == 1 or part.rank in (None, rank) else None for part in row.parts]

    @cached_property
    def peaks(self) -> Bytes:
        """The most that parts start … stop - 1 need in any phase: [start, stop], 0 where stop is not behind start."""
        size = len(self._held)
        needed = np.zeros((size + 1, size + 1), np.int64)
        resident, kept, alive = (np.array(one, np.int64) for one in (self._resident, self._kept, self._activations))
        for start in range(size):
            stays = (
                resident[start + 1 :] - resident[start] + self._row.micro_batches * (kept[start + 1 :] - kept[start])
            )
            streamed = self._streamed_from(start) if any(part.streams for part in self._row.parts) else 0
            largest = np.maximum.accumulate(alive[start:])
            needed[start, start + 1 :] = WORKSPACE + stays + streamed + self.waiting(start) + largest
        return needed

    def peak(self, start: int, stop: int) -> int:
        """Of one segment."""
        return int(self.peaks[start, stop])

    def by_phase(self, start: int, stop: int) -> dict[Phase, int]:
        """What they need in each phase of a video."""
        stays = self.stays(start, stop)
        return {phase: stays + self._activation(start, stop, phase) for phase in PHASES}

    def weights(self, start: int, stop: int) -> int:
        """Weights that are in the device's memory at once."""
        return self._resident[stop] - self._resident[start] + self._streamed(start, stop)

    def stays(self, start: int, stop: int) -> int:
        """All that is held from the first request to the last."""
        kept = (self._kept[stop] - self._kept[start]) * self._row.micro_batches
        return WORKSPACE + self.weights(start, stop) + kept + self.waiting(start)

    def waiting(self, start: int) -> int:
        """What may wait in front of a segment: every execution that is under way, while the device is busy."""
        return self._row.parts[start - 1].part.leaves * self._row.micro_batches // self._ranks if start else 0

    def _streamed(self, start: int, stop: int) -> int:
        """Room for weights that come and go."""
        sizes = (part.weights for part in self._held[start:stop] if part and part.streams)
        return sum(heapq.nlargest(STREAMED_AT_ONCE, sizes))

    def _streamed_from(self, start: int) -> Bytes:
        """The same for all stops behind a start."""
        largest, rooms = [0] * STREAMED_AT_ONCE, list[int]()
        for part in self._held[start:]:
            if part and part.streams:
                largest = sorted((*largest, part.weights))[1:]
            rooms.append(sum(largest))
        return np.array(rooms, np.int64)

    @cached_property
    def _resident(self) -> Sequence[int]:
        weights = (part.weights if part and not part.streams else 0 for part in self._held)
        return list(accumulate(weights, initial=0))

    @cached_property
    def _kept(self) -> Sequence[int]:
        # Cross-attention's keys and values are whole on every rank.
        return list(accumulate((part.kept if part else 0 for part in self._held), initial=0))

    @cached_property
    def _activations(self) -> Sequence[int]:
        return [self._alive(part) for part in self._held]

    def _alive(self, part: RowPart | None) -> int:
        if part is None:
            return 0
        return -(-part.part.activation // self._ranks) if part.part.is_split else part.part.activation

    def _activation(self, start: int, stop: int, phase: Phase) -> int:
        used = (any(use.phase == phase for use in part.uses) for part in self._row.parts[start:stop])
        return max(
            (alive for alive, is_used in zip(self._activations[start:stop], used, strict=True) if is_used), default=0
        )
